//! Descriptors: numbers as the kernel gives them, and what they are across dup, fork, exec and loops of close.

use crate::world::{World, echo_server};

#[test]
fn remote_files_get_the_lowest_free_numbers() {
    let world = World::new();
    let source = r#"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    int first = open("/srv/data/hello.txt", O_RDONLY);
    int second = open("/srv/data", O_RDONLY | O_DIRECTORY);
    int third = open("/dev/null", O_RDONLY);
    close(first);
    int again = open("/srv/data/more/list.txt", O_RDONLY);
    printf("%d %d %d %d\n", first, second, third, again);
    FILE *stream = (close(second), fopen("/srv/data/hello.txt", "r"));
    printf("%d %d\n", fileno(stream), dup(fileno(stream)));
    return 0;
}
"#;
    let program = world.compile("lowest", source, &[]);
    assert_eq!(world.run(&[program]).ok(), "3 4 5 3\n4 6\n");
}

#[test]
fn a_copy_of_a_descriptor_is_the_same_file() {
    let world = World::new();
    let script = "
import os, fcntl
f = os.open('/srv/data/hello.txt', os.O_RDONLY)
def told(status): return status[:7], status.st_mtime_ns, status.st_ctime_ns
wanted = told(os.stat('/srv/data/hello.txt'))
copies = [os.dup(f), os.dup2(f, 77), fcntl.fcntl(f, fcntl.F_DUPFD_CLOEXEC, 100)]
print([told(os.fstat(c)) == wanted for c in copies])
os.read(f, 6)
print([os.read(c, 4) for c in copies], os.lseek(f, 0, 1))
os.close(f)
g = os.open('/dev/null', os.O_RDONLY)
print(g == f, told(os.fstat(g)) == told(os.stat('/dev/null')), told(os.fstat(77)) == wanted)
print(fcntl.fcntl(77, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY)
try: os.write(77, b'x')
except OSError as error: print(error.strerror)
";
    world.same(&["python3", "-c", script]);
}

#[test]
fn two_opens_have_positions_of_their_own() {
    let world = World::new();
    let script = "
exec 3< /srv/data/more/list.txt 4< /srv/data/more/list.txt
read -r a <&3; read -r b <&3; read -r c <&4
echo $a $b $c
";
    world.same(&["bash", "-c", script]);
}

#[test]
fn what_stays_open_across_exec_is_still_remote() {
    let world = World::new();
    let script = r#"
import os, sys
f = os.open('/srv/data/hello.txt', os.O_RDONLY)
d = os.open('/srv/data', os.O_RDONLY)
closes = os.open('/srv/data/more/list.txt', os.O_RDONLY)
for n in (f, d): os.set_inheritable(n, True)
code = """
import os
print(os.fstat({0}) == os.stat('/srv/data/hello.txt'), os.read({0}, 5))
print(os.fstat({1}) == os.stat('/srv/data'), sorted(os.listdir({1})), os.stat('hello.txt', dir_fd={1}).st_size)
try: os.fstat({2})
except OSError as error: print(error.strerror)
""".format(f, d, closes)
os.execv(sys.executable, [sys.executable, '-c', code])
"#;
    world.same(&["python3", "-c", script]);
}

#[test]
fn a_remote_connection_stays_remote_across_exec() {
    let world = World::new();
    world.route("10.1.2.3:7000", echo_server("127.0.0.1:0"));
    let script = "
import os, sys, socket
s = socket.create_connection(('10.1.2.3', 7000))
s.set_inheritable(True)
code = 'import socket; s = socket.socket(fileno=%d); print(s.getpeername(), s.recv(20))' % s.fileno()
os.execv(sys.executable, [sys.executable, '-c', code])
";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), "('10.1.2.3', 7000) b'welcome\\n'\n");
}

#[test]
fn a_redirected_file_is_what_it_was() {
    let world = World::new();
    world.same(&["bash", "-c", "stat -L -c '%i %s %a %Y' - < /srv/data/hello.txt"]);
    let script = "
import subprocess
with open('/srv/data/more/list.txt') as f:
    print(subprocess.run(['stat', '-L', '-c', '%i %s', '-'], stdin=f, capture_output=True, text=True).stdout)
";
    world.same(&["python3", "-c", script]);
}

#[test]
fn a_fork_asks_on_its_own_and_disturbs_nobody() {
    let world = World::new();
    let source = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
static int check(const char *path, const char *wanted) {
    char text[64] = "";
    struct stat found;
    int f = open(path, O_RDONLY);
    if (f < 0 || read(f, text, sizeof text - 1) < 0 || fstat(f, &found)) return 1;
    close(f);
    return strncmp(text, wanted, strlen(wanted)) != 0 || found.st_size != (long)strlen(text);
}
int main(void) {
    if (check("/srv/data/hello.txt", "hello")) return 1;
    for (int i = 0; i < 8; i++)
        if (!fork()) {
            int failed = 0;
            for (int j = 0; j < 50; j++)
                failed |= check(j % 2 ? "/srv/data/hello.txt" : "/srv/data/more/list.txt", j % 2 ? "hello" : "one");
            _exit(failed);
        }
    int failed = 0, status;
    for (int j = 0; j < 50; j++) failed |= check("/srv/data/hello.txt", "hello");
    while (wait(&status) > 0) failed |= status;
    puts(failed ? "failed" : "fine");
    return failed != 0;
}
"#;
    let program = world.compile("forks", source, &[]);
    assert_eq!(world.run(&[program]).ok(), "fine\n");
}

#[test]
fn threads_and_their_forks_ask_at_once() {
    let world = World::new();
    let source = r#"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
static void *work(void *argument) {
    long failed = 0;
    for (int i = 0; i < 100; i++) {
        struct stat found;
        char text[64] = "";
        int f = open("/srv/data/hello.txt", O_RDONLY);
        if (f < 0 || fstat(f, &found) || found.st_size != 19 || read(f, text, 5) != 5 || strcmp(text, "hello")) failed++;
        close(f);
        if (argument && i % 20 == 0) {
            int status, pid = fork();
            if (!pid) _exit(open("/srv/data/hello.txt", O_RDONLY) < 0);
            if (waitpid(pid, &status, 0) != pid || status) failed++;
        }
    }
    return (void *)failed;
}
int main(void) {
    pthread_t threads[8];
    long failed = 0;
    for (long i = 0; i < 8; i++) pthread_create(&threads[i], 0, work, (void *)(i % 2));
    for (int i = 0; i < 8; i++) {
        void *result;
        pthread_join(threads[i], &result);
        failed += (long)result;
    }
    printf("%ld\n", failed);
    return failed != 0;
}
"#;
    let program = world.compile("threads", source, &[]);
    assert_eq!(world.run(&[program]).ok(), "0\n");
}

#[test]
fn a_child_of_vfork_leaves_its_parent_whole() {
    let world = World::new();
    let source = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    struct stat before, after;
    int f = open("/srv/data/hello.txt", O_RDONLY), status;
    if (fstat(f, &before)) return 1;
    for (int i = 0; i < 20; i++) {
        pid_t pid = vfork();
        if (!pid) {
            chdir("/srv");
            dup2(open("/srv/data/more/list.txt", O_RDONLY), 0);
            close_range(3, ~0U, 0);
            execl("/bin/sh", "sh", "-c", "read -r line; [ \"$line\" = one ]", NULL);
            _exit(9);
        }
        if (waitpid(pid, &status, 0) != pid || status) return 2;
        if (fstat(f, &after) || after.st_ino != before.st_ino || after.st_uid != before.st_uid) return 3;
        int g = open("/srv/data/hello.txt", O_RDONLY);
        if (g != f + 1) return 4;
        close(g);
    }
    puts("fine");
    return 0;
}
"#;
    let program = world.compile("vforks", source, &[]);
    assert_eq!(world.run(&[program]).ok(), "fine\n");
}

#[test]
fn a_program_that_closes_everything_does_not_lose_the_pod() {
    let world = World::new();
    let source = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static int works(void) {
    char text[64] = "";
    int f = open("/srv/data/hello.txt", O_RDONLY);
    int fine = f == 3 && read(f, text, 5) == 5 && !strcmp(text, "hello");
    return close(f), fine;
}
int main(void) {
    int before = works();
    for (int i = 3; i < 65536; i++) close(i);
    int after_loop = works();
    close_range(3, ~0U, 0);
    int after_range = works();
    closefrom(3);
    printf("%d %d %d %d\n", before, after_loop, after_range, works());
    return 0;
}
"#;
    let program = world.compile("closes", source, &[]);
    assert_eq!(world.run(&[program]).ok(), "1 1 1 1\n");
}

#[test]
fn the_layers_socket_is_never_written_to_where_it_became_the_programs_file() {
    let world = World::new();
    let script = "
import os
open('/srv/data/hello.txt').read()
links = [(int(n), os.path.join('/proc/self/fd', n)) for n in os.listdir('/proc/self/fd')]
ours = [n for n, link in links if n > 100 and os.path.islink(link) and os.readlink(link).startswith('socket:')]
mine = os.open('mine', os.O_RDWR | os.O_CREAT)
for n in ours: os.dup2(mine, n)
print(len(ours), open('/srv/data/hello.txt').read().strip(), os.fstat(mine).st_size)
print(all(os.fstat(n).st_ino == os.fstat(mine).st_ino for n in ours))
";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), "1 hello from the pod 0\nTrue\n");
}

#[test]
fn when_a_process_may_have_no_more_descriptors_open_says_so() {
    let world = World::new();
    let script = "
import os, resource, errno
os.stat('/srv/data')
resource.setrlimit(resource.RLIMIT_NOFILE, (20, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
try:
    while True: held.append(os.open('/srv/data/hello.txt', os.O_RDONLY))
except OSError as error: print(errno.errorcode[error.errno], held)
os.close(held.pop())
print(os.read(os.open('/srv/data/hello.txt', os.O_RDONLY), 5))
";
    let found = world.run(&["python3", "-c", script]).ok();
    assert!(found.starts_with("EMFILE [3, 4, ") && found.ends_with(", 19]\nb'hello'\n"), "{found}");
}

#[test]
fn a_descriptor_handed_to_another_process_is_a_file_there() {
    let world = World::new();
    let script = "
import os, socket
a, b = socket.socketpair()
if not os.fork():
    socket.send_fds(a, [b'x'], [os.open('/srv/data/hello.txt', os.O_RDONLY)])
    os._exit(0)
_, fds, _, _ = socket.recv_fds(b, 1, 1)
print(os.read(fds[0], 100), os.fstat(fds[0]).st_size, oct(os.fstat(fds[0]).st_mode))
";
    world.same(&["python3", "-c", script]);
}

#[test]
fn a_signal_handler_that_jumps_out_of_a_call_leaves_the_layer_whole() {
    let world = World::new();
    let source = r#"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
static sigjmp_buf back;
static volatile int jumps;
static void jump(int signal) { jumps++; siglongjmp(back, 1); }
int main(void) {
    struct itimerval once = {{0, 0}, {0, 0}};
    struct stat found;
    signal(SIGALRM, jump);
    sigsetjmp(back, 1);
    if (jumps < 100) {
        once.it_value.tv_usec = 300 + 37 * jumps;
        setitimer(ITIMER_REAL, &once, 0);
        for (;;)
            if (access("/srv/data/hello.txt", R_OK)) return 1;
    }
    if (stat("/srv/data/hello.txt", &found) || found.st_size != 19) return 2;
    printf("%d\n", open("/srv/data/hello.txt", O_RDONLY) >= 0);
    return 0;
}
"#;
    let program = world.compile("jumps", source, &[]);
    assert_eq!(world.run(&[program]).ok(), "1\n");
}

#[test]
fn a_signal_handler_may_ask_while_the_program_is_in_malloc() {
    let world = World::new();
    let source = r#"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>
static volatile int asked;
static void ask(int signal) {
    if (access("/srv/data/hello.txt", R_OK)) _exit(1);
    asked++;
}
int main(void) {
    struct itimerval often = {{0, 211}, {0, 211}};
    struct itimerval never = {{0, 0}, {0, 0}};
    signal(SIGALRM, ask);
    setitimer(ITIMER_REAL, &often, 0);
    for (unsigned round = 0; asked < 2000; round++) {
        void *pieces[64];
        for (int i = 0; i < 64; i++) pieces[i] = malloc(1 + (round * 37 + i * 101) % 5000);
        for (int i = 0; i < 64; i++) free(pieces[i]);
    }
    setitimer(ITIMER_REAL, &never, 0);
    printf("%d\n", asked >= 2000);
    return 0;
}
"#;
    let program = world.compile("handler", source, &[]);
    assert_eq!(world.run(&[program]).ok(), "1\n");
}

#[test]
fn a_threads_first_question_may_come_from_a_handler_that_interrupts_malloc_and_its_end_leaves_nothing() {
    let world = World::new();
    // With more than one thread malloc takes a lock; pieces this large don't come from the thread's own cache.
    let source = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static volatile int asked, started;
static void ask(int signal) { if (access("/srv/data/hello.txt", R_OK)) _exit(1); asked = 1; }
static void *work(void *none) {
    void *pieces[64];
    started = 1;
    for (unsigned round = 0; !asked; round++) {
        for (int i = 0; i < 64; i++) pieces[i] = malloc(1100 + (round * 37 + i * 101) % 5000);
        for (int i = 0; i < 64; i++) free(pieces[i]);
    }
    return none;
}
static int descriptors(void) {
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder)) count++;
    closedir(folder);
    return count;
}
int main(void) {
    int before = 0;
    signal(SIGUSR1, ask);
    for (int i = 0; i < 200; i++) {
        pthread_t thread;
        asked = started = 0;
        pthread_create(&thread, 0, work, 0);
        while (!started) usleep(10);
        usleep(200 + i * 7 % 100);
        pthread_kill(thread, SIGUSR1);
        for (int waited = 0; !asked; waited++) { if (waited > 10000) { puts("hangs"); _exit(2); } usleep(1000); }
        pthread_join(thread, 0);
        if (i == 0) before = descriptors();
    }
    printf("%d\n", descriptors() - before);
    return 0;
}
"#;
    let program = world.compile("threads", source, &["-pthread"]);
    assert_eq!(world.run(&[program]).ok(), "0\n");
}
