//! Files and folders, as real programs read them.

use mirrord_layer_brain::settings::FileMode;

use crate::world::{Outcome, World};

#[test]
fn cat_reads_a_remote_file() {
    let world = World::new();
    assert_eq!(
        world.same(&["cat", "/srv/data/hello.txt", "/etc/app/config.yaml"]),
        "hello from the pod\nkey: value\n"
    );
}

#[test]
fn python_opens_lists_and_stats_remote_files() {
    let world = World::new();
    let script = "
import os
print(open('/srv/data/hello.txt').read())
print(sorted(os.listdir('/srv/data')))
print(os.stat('/srv/data/hello.txt'))
print(os.lstat('/srv/data/link').st_mode, os.readlink('/srv/data/link'))
print([(entry.name, entry.is_dir(), entry.stat().st_size) for entry in sorted(os.scandir('/srv/data'), key=lambda e: e.name)])
print(sorted((root, sorted(dirs), sorted(files)) for root, dirs, files in os.walk('/srv/data')))
print(os.path.exists('/srv/nothing'), os.access('/srv/data', os.R_OK | os.X_OK))
";
    world.same(&["python3", "-c", script]);
}

#[test]
fn ls_and_find_show_remote_folders_as_they_are() {
    let world = World::new();
    world.same(&["ls", "-la", "--time-style=full-iso", "/srv/data"]);
    world.same(&["ls", "-liR", "/srv"]);
    world.same(&["ls", "/srv/nothing"]);
    world.same(&["find", "/srv", "-printf", "%p %y %s %i\n"]);
    let format = "%n %F %a %h %i %s %u %g %b %B %x %y %z";
    world.same(&["stat", "-L", "-c", format, "/srv/data/link"]);
    world.same(&["stat", "-c", format, "/srv/data", "/srv/data/link", "/srv/data/hello.txt"]);
    world.same(&["du", "-ab", "/srv"]);
}

#[test]
fn shells_read_remote_files_by_redirection_test_and_wildcard() {
    let world = World::new();
    let script = r#"
while read -r line; do echo "[$line]"; done < /srv/data/more/list.txt
for f in /srv/data/*.txt; do echo "$f"; done
[ -f /srv/data/hello.txt ] && [ -r /srv/data/hello.txt ] && [ -d /srv/data ] && [ ! -e /srv/none ] && echo there
[ /srv/data/link -ef /srv/data/hello.txt ] && echo same
cat < /srv/data/hello.txt
head -c 5 /srv/data/hello.txt | tr a-z A-Z
. /srv/data/lib.sh
"#;
    world.remote("/srv/data/lib.sh", "echo sourced\n");
    world.same(&["bash", "-c", script]);
    // dash's wildcards are done inside libc by glob(3): see layer/README.md.
    world.same(&["sh", "-c", &script.replace("*.txt", "hello.txt")]);
}

#[test]
fn perl_and_node_read_remote_files() {
    let world = World::new();
    let perl = "open my $f, '<', '/srv/data/hello.txt' or die; print <$f>; opendir my $d, '/srv/data'; print join(',', sort readdir $d), -s '/srv/data/hello.txt'";
    world.same(&["perl", "-e", perl]);
    let node = "const fs = require('fs'); console.log(fs.readFileSync('/srv/data/hello.txt', 'utf8'), fs.readdirSync('/srv/data', {withFileTypes: true}).map(e => [e.name, e.isDirectory()]).sort(), fs.statSync('/srv/data/hello.txt').size)";
    world.same(&["node", "-e", node]);
}

#[test]
fn many_tools_read_remote_files_as_local_ones() {
    let world = World::new();
    world.remote("/srv/data/big", (0..300_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    let lines: [&[&str]; 11] = [
        &["sha256sum", "/srv/data/big", "/srv/data/hello.txt"],
        &["grep", "-rn", "two", "/srv"],
        &["wc", "-c", "/srv/data/big", "/srv/data/more/list.txt"],
        &["tail", "-n", "1", "/srv/data/more/list.txt"],
        &["cmp", "/srv/data/big", "/srv/data/big"],
        &["diff", "/srv/data/hello.txt", "/srv/data/more/list.txt"],
        &["sort", "-r", "/srv/data/more/list.txt"],
        &["od", "-A", "d", "-j", "1000000", "-N", "16", "/srv/data/big"],
        &["sed", "s/hello/bye/", "/srv/data/hello.txt"],
        &["awk", "{print NR, $0}", "/srv/data/more/list.txt"],
        &["tar", "cf", "/dev/null", "/srv/data"],
    ];
    for line in lines {
        world.same(line);
    }
}

#[test]
fn cp_copies_a_remote_folder_whole() {
    let world = World::new();
    world.run(&["cp", "-r", "/srv/data", "copy"]).ok();
    assert_eq!(
        world.run(&["cat", "copy/hello.txt", "copy/more/list.txt", "copy/link"]).ok().lines().count(),
        5
    );
}

#[test]
fn python_maps_seeks_and_reads_at_positions() {
    let world = World::new();
    let script = "
import mmap, os
with open('/srv/data/more/list.txt', 'rb') as f:
    m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    print(m[4:7], os.pread(f.fileno(), 3, 8), f.seek(0, 2))
    print(os.fstat(f.fileno()) == os.stat('/srv/data/more/list.txt'))
f = os.open('/srv/data', os.O_RDONLY | os.O_DIRECTORY)
print(sorted(os.listdir(f)), os.stat('hello.txt', dir_fd=f).st_size, os.readlink('link', dir_fd=f))
g = os.open('more/../hello.txt', os.O_RDONLY, dir_fd=f)
print(os.read(g, 100), os.fstat(f).st_mode)
";
    world.same(&["python3", "-c", script]);
}

#[test]
fn paths_from_a_remote_folder_may_lead_back_to_this_machine() {
    let world = World::new();
    let script = "
import os
root = os.open('/', os.O_RDONLY)
print('srv' in os.listdir(root))
passwd = os.open('etc/passwd', os.O_RDONLY, dir_fd=root)
print(os.read(passwd, 1 << 20) == open('/etc/passwd', 'rb').read())
print(os.stat('usr', dir_fd=root).st_ino == os.stat('/usr').st_ino)
";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), "True\nTrue\nTrue\n");
}

#[test]
fn a_relative_path_follows_the_working_folder() {
    let world = World::new();
    world.remote("/etc/hosts", "10.0.0.1 pod\n");
    let line = "cd /etc && cat hosts && cat app/config.yaml ../srv/data/hello.txt";
    assert_eq!(world.run(&["sh", "-c", line]).ok(), "10.0.0.1 pod\nkey: value\nhello from the pod\n");
    world.local("here.txt", "local\n");
    let script = "
import os
here = os.getcwd()
print(open('here.txt').read())
os.chdir('/etc')
print(open('hosts').read())
os.chdir(here)
print(open('here.txt').read(), open(os.path.relpath('/srv/data/hello.txt')).read())
";
    let expected = "local\n\n10.0.0.1 pod\n\nlocal\n hello from the pod\n\n";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), expected);
}

#[test]
fn writing_to_remote_paths_fails_as_on_a_read_only_mount_and_is_told_once() {
    let world = World::new();
    let script = "
import errno, os
for mode in ['w', 'a', 'r+', 'x']:
    try: open('/srv/data/hello.txt', mode)
    except OSError as error: print(errno.errorcode[error.errno])
print(os.access('/srv/data/hello.txt', os.W_OK))
try: os.open('/srv/data/new', os.O_CREAT | os.O_RDONLY)
except OSError as error: print(errno.errorcode[error.errno])
print(os.read(os.open('/srv/data/hello.txt', os.O_CREAT | os.O_RDONLY), 5))
";
    let expected = "EROFS\nEROFS\nEROFS\nEROFS\nFalse\nEROFS\nb'hello'\n";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), expected);
    assert_eq!(world.pod.count("Log"), 1);
    assert!(!world.place("/srv/data/new").exists());
    let outcome = world.run(&["sh", "-c", "echo x > /srv/data/hello.txt"]);
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
}

#[test]
fn what_is_local_asks_nobody() {
    let world = World::new();
    let file = world.local("plain", "plain\n");
    assert_eq!(world.run(&["cat", file.to_str().unwrap(), "plain", "/etc/passwd"]).code, Some(0));
    assert_eq!(world.run(&["ls", "-l", "/usr", "/tmp"]).code, Some(0));
    assert_eq!(*world.pod.asked.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn folders_can_be_read_again_and_from_a_position() {
    let world = World::new();
    let source = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
int main(int count, char **arguments) {
    DIR *stream = opendir(arguments[1]);
    if (!stream) return perror("opendir"), 1;
    struct dirent *entry;
    int all = 0;
    long third = 0;
    char name[256] = "";
    while ((errno = 0, entry = readdir(stream))) {
        if (++all == 2) third = telldir(stream);
        if (all == 3) strcpy(name, entry->d_name);
        struct stat by_name, by_link;
        if (fstatat(dirfd(stream), entry->d_name, &by_name, AT_SYMLINK_NOFOLLOW)) return perror("fstatat"), 2;
        if (strcmp(entry->d_name, "..") && by_name.st_ino != entry->d_ino) return 3;
        if (fstatat(dirfd(stream), "", &by_link, AT_EMPTY_PATH) || !S_ISDIR(by_link.st_mode)) return 4;
    }
    if (errno) return 5;
    seekdir(stream, third);
    if (!(entry = readdir(stream)) || strcmp(entry->d_name, name)) return 6;
    rewinddir(stream);
    struct dirent copy;
    int again = 0;
    while (!readdir_r(stream, &copy, &entry) && entry) again++;
    printf("%d %d\n", all, again);
    return closedir(stream);
}
"#;
    let program = world.compile("folders", source, &["-Wno-deprecated-declarations"]);
    world.same(&[program.to_str().unwrap(), "/srv/data"]);
}

#[test]
fn a_mount_of_the_pod_is_remote_even_below_a_local_folder() {
    let world = World::with(|settings| settings.remote_mounts = vec!["/tmp/pods/volume".into()]);
    world.remote("/tmp/pods/volume/file", "mounted\n");
    assert_eq!(world.run(&["cat", "/tmp/pods/volume/file"]).ok(), "mounted\n");
    let script = "import os; print(os.read(os.open('pods/volume/file', os.O_RDONLY, dir_fd=os.open('/tmp', os.O_RDONLY)), 9))";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), "b'mounted\\n'\n");
}

#[test]
fn in_local_mode_files_are_local() {
    let world = World::with(|settings| settings.files = FileMode::Local);
    let outcome = world.run(&["cat", "/srv/data/hello.txt"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(world.pod.count("Open"), 0);
}

#[test]
fn when_the_session_ends_remote_calls_fail_once_loudly_and_local_ones_go_on() {
    let world = World::new();
    let file = world.local("plain", "plain\n");
    *world.pod.ended.lock().unwrap() = Some("its owner deleted it".to_owned());
    let outcome =
        world.run(&["cat", "/srv/data/hello.txt", "/srv/data/more/list.txt", file.to_str().unwrap()]);
    assert_eq!(outcome.stdout, "plain\n");
    assert_eq!(
        outcome.stderr.matches("mirrord: the session ended: its owner deleted it").count(),
        1,
        "{outcome:?}"
    );
    assert_eq!(outcome.stderr.matches("Input/output error").count(), 2, "{outcome:?}");
}

#[test]
fn without_a_proxy_remote_calls_fail_and_say_why() {
    let world = World::with(|settings| settings.proxy = "/tmp/no/such/socket".into());
    let outcome = world.run(&["cat", "/srv/data/hello.txt"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("mirrord: the session ended: its proxy can't be reached"), "{outcome:?}");
}

#[test]
fn settings_that_cannot_be_read_leave_the_program_local_and_are_told() {
    let world = World::new();
    let run = |value: Option<&str>| {
        let mut command = world.command(&["cat", "/etc/passwd"]);
        match value {
            Some(value) => command.env("MIRRORD_SETTINGS", value),
            None => command.env_remove("MIRRORD_SETTINGS"),
        };
        Outcome::from(command.output().unwrap())
    };
    let broken = run(Some("nonsense"));
    assert_eq!(broken.code, Some(0));
    assert!(broken.stderr.starts_with("mirrord: MIRRORD_SETTINGS can't be read"), "{broken:?}");
    run(None).ok();
}

#[test]
fn real_paths_are_found_across_links() {
    let world = World::new();
    std::os::unix::fs::symlink("../data/more", world.place("/srv/data/folder")).unwrap();
    world.same(&["realpath", "/srv/data/folder/list.txt", "/srv/data/link", "/srv/data/none"]);
    world.same(&["python3", "-c", "import os; print(os.path.realpath('/srv/data/folder/../link'))"]);
    world.same(&["perl", "-MCwd=realpath", "-e", "print realpath('/srv/data/folder')"]);
    let source = r#"
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **arguments) {
    char place[8192], *found = realpath(arguments[1], NULL);
    printf("%s %s\n", found, realpath(arguments[1], place));
    free(found);
    return 0;
}
"#;
    let program = world.compile("real", source, &["-O2", "-D_FORTIFY_SOURCE=2"]);
    for path in ["/srv/data/folder/list.txt", "/srv/data/none", "/srv/data/hello.txt/x"] {
        world.same(&[program.to_str().unwrap(), path]);
    }
}

#[test]
fn what_changes_a_remote_path_fails_as_on_a_read_only_mount() {
    let world = World::new();
    let script = "
import os
calls = [lambda p: os.mkdir(p), lambda p: os.rmdir(p), lambda p: os.unlink(p), lambda p: os.rename(p, '/tmp/x'),
    lambda p: os.rename('/tmp', p), lambda p: os.link(p, '/tmp/x'), lambda p: os.symlink('/x', p), lambda p: os.chmod(p, 0),
    lambda p: os.chown(p, 0, 0), lambda p: os.truncate(p, 0), lambda p: os.mkfifo(p), lambda p: os.utime(p)]
for call in calls:
    try:
        call('/srv/data/hello.txt')
        print('done')
    except OSError as error:
        print(error.errno)
";
    let outcome = world.run(&["python3", "-c", script]);
    assert_eq!(outcome.stdout, "30\n".repeat(12), "EROFS; {}", outcome.stderr);
}
