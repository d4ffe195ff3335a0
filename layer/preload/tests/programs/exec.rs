//! Programs that start programs: the layer comes along, or the start is refused.

use std::{path::Path, process::Command};

use crate::world::{Outcome, World};

const PRINTS: &str = r#"
#include <stdio.h>
int main(void) {
    puts(fopen("/srv/data/hello.txt", "r") ? "read the pod's file" : "ran locally");
    return 0;
}
"#;

#[test]
fn children_and_grandchildren_are_under_the_layer() {
    let world = World::new();
    let lines: [&[&str]; 6] = [
        &["sh", "-c", "sh -c 'cat /srv/data/hello.txt; exit 3'; echo $?"],
        &["perl", "-e", "print `cat /srv/data/hello.txt`; system('cat /srv/data/more/list.txt')"],
        &["python3", "-c", "import os; print(os.popen('cat /srv/data/hello.txt').read())"],
        &[
            "node",
            "-e",
            "process.stdout.write(require('child_process').execFileSync('cat', ['/srv/data/hello.txt']))",
        ],
        &["xargs", "-a", "/srv/data/more/list.txt", "-n", "1", "echo"],
        &["env", "cat", "/srv/data/hello.txt"],
    ];
    for line in lines {
        world.same(line);
    }
}

#[test]
fn a_cleared_environment_does_not_lose_the_layer() {
    let world = World::new();
    world.same(&["env", "-i", "/bin/cat", "/srv/data/hello.txt"]);
    world.same(&["env", "-i", "PATH=/bin:/usr/bin", "sh", "-c", "env -i /bin/cat /srv/data/hello.txt"]);
    let script = "
import subprocess, os
print(subprocess.run(['cat', '/srv/data/hello.txt'], env={'PATH': '/bin:/usr/bin'}, capture_output=True).stdout)
print(subprocess.run(['/bin/cat', '/srv/data/hello.txt'], env={'LD_PRELOAD': ''}, close_fds=False, capture_output=True).stdout)
os.waitpid(os.posix_spawn('/bin/cat', ['cat', '/srv/data/hello.txt'], {}), 0)
";
    world.same(&["python3", "-c", script]);
}

#[test]
fn another_preloaded_library_is_kept() {
    let world = World::new();
    let line =
        ["env", "-i", "LD_PRELOAD=libm.so.6", "/bin/sh", "-c", "cat /srv/data/hello.txt; echo $LD_PRELOAD"];
    let layer = world.settings.layer.display();
    assert_eq!(world.run(&line).ok(), format!("hello from the pod\n{layer}:libm.so.6\n"));
}

#[test]
fn a_large_environment_is_passed_on_whole() {
    let world = World::new();
    let script = "
import os
many = {'V%d' % i: 'x' * 10 for i in range(3000)}
os.execve('/bin/sh', ['sh', '-c', 'env | grep -c ^V; cat /srv/data/hello.txt'], {**many, 'PATH': '/bin:/usr/bin'})
";
    world.same(&["python3", "-c", script]);
}

/// Starts the program of its second argument, by the function that the first names.
const STARTS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
int main(int count, char **arguments) {
    char *how = arguments[1], *what = arguments[2], *name = strrchr(what, '/') + 1;
    char *list[] = {what, "1", "2", "3", "4", "5", "6", "7", "8", "9", NULL}, *none[] = {NULL};
    if (!strcmp(how, "execve")) execve(what, list, environ);
    if (!strcmp(how, "execve-bare")) execve(what, list, none);
    if (!strcmp(how, "execv")) execv(what, list);
    if (!strcmp(how, "execvp")) execvp(name, list);
    if (!strcmp(how, "execvpe")) execvpe(name, list, none);
    if (!strcmp(how, "fexecve")) fexecve(open(what, O_RDONLY), list, none);
    if (!strcmp(how, "execveat")) execveat(AT_FDCWD, what, list, none, 0);
    if (!strcmp(how, "execl")) execl(what, what, "1", "2", "3", "4", "5", "6", "7", "8", "9", NULL);
    if (!strcmp(how, "execlp")) execlp(name, what, "1", "2", "3", "4", "5", "6", "7", "8", "9", NULL);
    if (!strcmp(how, "execle")) execle(what, what, "1", "2", "3", "4", "5", "6", "7", "8", "9", NULL, none);
    if (!strcmp(how, "execl-short")) execl(what, what, NULL);
    if (!strncmp(how, "spawn", 5)) {
        pid_t pid;
        int status = 0, error = strcmp(how, "spawnp") ? posix_spawn(&pid, what, NULL, NULL, list, none)
                                                      : posix_spawnp(&pid, name, NULL, NULL, list, none);
        if (error) return fprintf(stderr, "%s\n", strerror(error)), 1;
        return waitpid(pid, &status, 0), WEXITSTATUS(status);
    }
    return perror("start"), 1;
}
"#;

const WAYS: [&str; 13] = [
    "execve",
    "execve-bare",
    "execv",
    "execvp",
    "execvpe",
    "fexecve",
    "execveat",
    "execl",
    "execlp",
    "execle",
    "execl-short",
    "spawn",
    "spawnp",
];

/// Says how many arguments it got, which is last, and whether it is under the layer.
const COUNTS: &str = r#"
#include <stdio.h>
int main(int count, char **arguments) {
    printf("%d %s %d\n", count - 1, arguments[count - 1], fopen("/srv/data/hello.txt", "r") != NULL);
    return 0;
}
"#;

fn start(world: &World, starter: &Path, how: &str, what: &Path) -> Outcome {
    let mut command = world.command(&[starter.as_os_str(), how.as_ref(), what.as_os_str()]);
    let folder = what.parent().unwrap().display();
    command.env("PATH", format!("{folder}:/bin:/usr/bin"));
    command.output().unwrap().into()
}

#[test]
fn every_way_to_start_a_program_takes_the_layer_along() {
    let world = World::new();
    let starter = world.compile("starter", STARTS, &[]);
    let counts = world.compile("counts", COUNTS, &[]);
    for how in WAYS {
        let short = how == "execl-short";
        let expected = if short { format!("0 {} 1\n", counts.display()) } else { "9 9 1\n".to_owned() };
        assert_eq!(start(&world, &starter, how, &counts).ok(), expected, "{how}");
    }
}

#[test]
fn a_static_child_is_refused_with_a_message_by_every_way() {
    let world = World::new();
    let starter = world.compile("starter", STARTS, &[]);
    let program = world.compile("static", PRINTS, &["-static"]);
    for how in WAYS {
        let outcome = start(&world, &starter, how, &program);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{how}: {outcome:?}");
        let said = outcome.stderr.contains("is statically linked")
            && outcome.stderr.contains("MIRRORD_ALLOW_LOCAL=1");
        assert!(said && outcome.stderr.contains("Permission denied"), "{how}: {outcome:?}");
    }
}

#[test]
fn a_static_child_runs_where_the_user_allows_it() {
    let world = World::new();
    let program = world.compile("static", PRINTS, &["-static"]);
    let path = program.to_str().unwrap();
    let outcome = world.run(&["sh", "-c", path]);
    assert_ne!(outcome.code, Some(0));
    assert!(outcome.stderr.contains("MIRRORD_ALLOW_LOCAL=1"), "{outcome:?}");
    let allowed = format!("MIRRORD_ALLOW_LOCAL=1 {path}");
    assert_eq!(world.run(&["sh", "-c", &allowed]).ok(), "ran locally\n");
    let mut command = world.command(&["sh", "-c", path]);
    command.env("MIRRORD_ALLOW_LOCAL", "1");
    assert_eq!(Outcome::from(command.output().unwrap()).ok(), "ran locally\n");
}

#[test]
fn a_script_of_a_static_interpreter_is_refused_and_one_of_a_dynamic_runs() {
    let world = World::new();
    let program = world.compile("static", PRINTS, &["-static"]);
    let bad = world.script("bad", &format!("#!{}\n", program.display()));
    let good = world.script("good", "#!/usr/bin/env python3\nprint(open('/srv/data/hello.txt').read())\n");
    let plain = world.script("plain", "cat /srv/data/hello.txt\n");
    let run = |script: &Path| world.run(&["sh", "-c", script.to_str().unwrap()]);
    let outcome = run(&bad);
    assert!(outcome.stderr.contains("static is statically linked"), "{outcome:?}");
    assert_eq!(run(&good).ok(), "hello from the pod\n\n");
    assert_eq!(run(&plain).ok(), "hello from the pod\n");
}

#[test]
fn a_musl_child_is_refused() {
    let world = World::new();
    let code = world.local("musl.c", PRINTS);
    let program = code.with_extension("");
    let built = Command::new("musl-gcc").arg("-o").arg(&program).arg(&code).status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("no musl-gcc here: not tested");
        return;
    }
    let outcome = world.run(&["sh", "-c", program.to_str().unwrap()]);
    assert!(outcome.stderr.contains("another C library than glibc"), "{outcome:?}");
    assert_eq!(outcome.stdout, "");
}

#[test]
fn a_go_child_is_refused() {
    let world = World::new();
    let Ok(native) = Command::new("go").arg("version").output() else {
        eprintln!("no go here, which is a Go program itself: not tested");
        return;
    };
    let outcome = world.run(&["sh", "-c", "go version"]);
    assert!(outcome.stderr.contains("is a Go program"), "{outcome:?}");
    let allowed = world.run(&["sh", "-c", "MIRRORD_ALLOW_LOCAL=1 go version"]);
    assert_eq!(allowed, Outcome::from(native));
}

#[test]
fn what_does_not_exist_fails_as_ever() {
    let world = World::new();
    world.same(&["sh", "-c", "/no/such/program; echo $?; no-such-program; echo $?; /etc/passwd; echo $?"]);
}
