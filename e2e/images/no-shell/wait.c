// Waits to be told to end: the application of an image that has nothing else.
#include <signal.h>
#include <unistd.h>

static void quit(int signal) { _exit(signal == 0); }

int main(void) {
  signal(SIGTERM, quit);
  for (;;) pause();
}
