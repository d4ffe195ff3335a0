// The sandbox container's only process: holds the pod's namespaces, and reaps orphans where the pod shares its process
// namespace (it is then process 1).
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void quit(int signal) { _exit(signal == 0); }
static void reap(int signal) { while (waitpid(-1, 0, WNOHANG) > signal * 0) ; }

int main(void) {
  signal(SIGTERM, quit), signal(SIGINT, quit), signal(SIGCHLD, reap);
  for (;;) pause();
}
