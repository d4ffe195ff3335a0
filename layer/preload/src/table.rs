//! The functions that are replaced: one row each, and nowhere else.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};

use libc::{
    DIR, FILE, addrinfo, dev_t, dirent, dirent64, gid_t, hostent, mode_t, off_t, off64_t, pid_t,
    posix_spawn_file_actions_t, posix_spawnattr_t, size_t, sockaddr, socklen_t, ssize_t, timespec, timeval,
    uid_t, utimbuf,
};

use crate::{
    folders::{Compare, Filter},
    hook::hooks,
};

hooks! {
    assembly: execl, execlp, execle;

    /// open(2)
    required fn open(path: *const c_char, flags: c_int; mode: mode_t) -> c_int, in libc => files::open;
    /// open(2), of programs with a 32-bit `off_t`
    required fn open64(path: *const c_char, flags: c_int; mode: mode_t) -> c_int, in libc => files::open64;
    /// openat(2)
    required fn openat(folder: c_int, path: *const c_char, flags: c_int; mode: mode_t) -> c_int, in libc => files::openat;
    /// openat(2), of programs with a 32-bit `off_t`
    required fn openat64(folder: c_int, path: *const c_char, flags: c_int; mode: mode_t) -> c_int, in libc => files::openat64;
    /// open(2) of programs built with `_FORTIFY_SOURCE`
    optional fn __open_2(path: *const c_char, flags: c_int) -> c_int, in lsb => files::__open_2;
    /// open(2) of programs built with `_FORTIFY_SOURCE`
    optional fn __open64_2(path: *const c_char, flags: c_int) -> c_int, in lsb => files::__open64_2;
    /// openat(2) of programs built with `_FORTIFY_SOURCE`
    optional fn __openat_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int, in lsb => files::__openat_2;
    /// openat(2) of programs built with `_FORTIFY_SOURCE`
    optional fn __openat64_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int, in lsb => files::__openat64_2;
    /// creat(2)
    required fn creat(path: *const c_char, mode: mode_t) -> c_int, in libc => files::creat;
    /// creat(2), of programs with a 32-bit `off_t`
    required fn creat64(path: *const c_char, mode: mode_t) -> c_int, in libc => files::creat64;
    /// fopen(3)
    required fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE, in libc => files::fopen;
    /// fopen(3), of programs with a 32-bit `off_t`
    required fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE, in libc => files::fopen64;
    /// freopen(3)
    required fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE, in libc => files::freopen;
    /// freopen(3), of programs with a 32-bit `off_t`
    required fn freopen64(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE, in libc => files::freopen64;
    /// access(2)
    required fn access(path: *const c_char, mode: c_int) -> c_int, in libc => files::access;
    /// faccessat(2)
    required fn faccessat(folder: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int, in libc => files::faccessat;
    /// euidaccess(3)
    required fn euidaccess(path: *const c_char, mode: c_int) -> c_int, in libc => files::euidaccess;
    /// eaccess(3)
    required fn eaccess(path: *const c_char, mode: c_int) -> c_int, in libc => files::eaccess;
    /// readlink(2)
    required fn readlink(path: *const c_char, buffer: *mut c_char, size: size_t) -> ssize_t, in libc => files::readlink;
    /// readlinkat(2)
    required fn readlinkat(folder: c_int, path: *const c_char, buffer: *mut c_char, size: size_t) -> ssize_t, in libc => files::readlinkat;
    /// readlink(2) of programs built with `_FORTIFY_SOURCE`
    optional fn __readlink_chk(path: *const c_char, buffer: *mut c_char, size: size_t, room: size_t) -> ssize_t, in lsb => files::__readlink_chk;
    /// readlinkat(2) of programs built with `_FORTIFY_SOURCE`
    optional fn __readlinkat_chk(folder: c_int, path: *const c_char, buffer: *mut c_char, size: size_t, room: size_t) -> ssize_t, in lsb => files::__readlinkat_chk;
    /// realpath(3)
    required fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char, in libc => files::realpath;
    /// realpath(3) of programs built with `_FORTIFY_SOURCE`
    optional fn __realpath_chk(path: *const c_char, out: *mut c_char, room: size_t) -> *mut c_char, in lsb => files::__realpath_chk;
    /// canonicalize_file_name(3)
    required fn canonicalize_file_name(path: *const c_char) -> *mut c_char, in lsb => files::canonicalize_file_name;
    /// getxattr(2): remote files have none
    required fn getxattr(path: *const c_char, name: *const c_char, value: *mut c_void, size: size_t) -> ssize_t, in libc => files::getxattr;
    /// lgetxattr(2): remote files have none
    required fn lgetxattr(path: *const c_char, name: *const c_char, value: *mut c_void, size: size_t) -> ssize_t, in libc => files::lgetxattr;
    /// listxattr(2): remote files have none
    required fn listxattr(path: *const c_char, list: *mut c_char, size: size_t) -> ssize_t, in libc => files::listxattr;
    /// llistxattr(2): remote files have none
    required fn llistxattr(path: *const c_char, list: *mut c_char, size: size_t) -> ssize_t, in libc => files::llistxattr;
    /// chdir(2): decides what relative paths mean
    required fn chdir(path: *const c_char) -> c_int, in libc => files::chdir;
    /// fchdir(2): decides what relative paths mean
    required fn fchdir(folder: c_int) -> c_int, in libc => files::fchdir;

    /// mkdir(2): remote files are read-only; so below
    required fn mkdir(path: *const c_char, mode: mode_t) -> c_int, in libc => changes::mkdir;
    /// mkdirat(2)
    required fn mkdirat(folder: c_int, path: *const c_char, mode: mode_t) -> c_int, in libc => changes::mkdirat;
    /// rmdir(2)
    required fn rmdir(path: *const c_char) -> c_int, in libc => changes::rmdir;
    /// unlink(2)
    required fn unlink(path: *const c_char) -> c_int, in libc => changes::unlink;
    /// unlinkat(2)
    required fn unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int, in libc => changes::unlinkat;
    /// remove(3)
    required fn remove(path: *const c_char) -> c_int, in libc => changes::remove;
    /// rename(2)
    required fn rename(from: *const c_char, to: *const c_char) -> c_int, in libc => changes::rename;
    /// renameat(2)
    required fn renameat(from_folder: c_int, from: *const c_char, to_folder: c_int, to: *const c_char) -> c_int, in libc => changes::renameat;
    /// renameat2(2), since glibc 2.28
    optional fn renameat2(from_folder: c_int, from: *const c_char, to_folder: c_int, to: *const c_char, flags: c_uint) -> c_int, in libc => changes::renameat2;
    /// link(2)
    required fn link(from: *const c_char, to: *const c_char) -> c_int, in libc => changes::link;
    /// linkat(2)
    required fn linkat(from_folder: c_int, from: *const c_char, to_folder: c_int, to: *const c_char, flags: c_int) -> c_int, in libc => changes::linkat;
    /// symlink(2)
    required fn symlink(target: *const c_char, path: *const c_char) -> c_int, in libc => changes::symlink;
    /// symlinkat(2)
    required fn symlinkat(target: *const c_char, folder: c_int, path: *const c_char) -> c_int, in libc => changes::symlinkat;
    /// chmod(2)
    required fn chmod(path: *const c_char, mode: mode_t) -> c_int, in libc => changes::chmod;
    /// fchmodat(2)
    required fn fchmodat(folder: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int, in libc => changes::fchmodat;
    /// chown(2)
    required fn chown(path: *const c_char, owner: uid_t, group: gid_t) -> c_int, in libc => changes::chown;
    /// lchown(2)
    required fn lchown(path: *const c_char, owner: uid_t, group: gid_t) -> c_int, in libc => changes::lchown;
    /// fchownat(2)
    required fn fchownat(folder: c_int, path: *const c_char, owner: uid_t, group: gid_t, flags: c_int) -> c_int, in libc => changes::fchownat;
    /// truncate(2)
    required fn truncate(path: *const c_char, length: off_t) -> c_int, in libc => changes::truncate;
    /// truncate(2), of programs with a 32-bit `off_t`
    required fn truncate64(path: *const c_char, length: off64_t) -> c_int, in libc => changes::truncate64;
    /// mknod(2), since glibc 2.33
    optional fn mknod(path: *const c_char, mode: mode_t, device: dev_t) -> c_int, in libc => changes::mknod;
    /// mknodat(2), since glibc 2.33
    optional fn mknodat(folder: c_int, path: *const c_char, mode: mode_t, device: dev_t) -> c_int, in libc => changes::mknodat;
    /// mkfifo(3)
    required fn mkfifo(path: *const c_char, mode: mode_t) -> c_int, in libc => changes::mkfifo;
    /// mkfifoat(3)
    required fn mkfifoat(folder: c_int, path: *const c_char, mode: mode_t) -> c_int, in libc => changes::mkfifoat;
    /// utime(2)
    required fn utime(path: *const c_char, times: *const utimbuf) -> c_int, in libc => changes::utime;
    /// utimes(2)
    required fn utimes(path: *const c_char, times: *const timeval) -> c_int, in libc => changes::utimes;
    /// lutimes(3)
    required fn lutimes(path: *const c_char, times: *const timeval) -> c_int, in libc => changes::lutimes;
    /// mkstemp(3)
    required fn mkstemp(template: *mut c_char) -> c_int, in libc => changes::mkstemp;
    /// mkstemp(3), of programs with a 32-bit `off_t`
    optional fn mkstemp64(template: *mut c_char) -> c_int, in lsb => changes::mkstemp64;
    /// mkostemp(3)
    required fn mkostemp(template: *mut c_char, flags: c_int) -> c_int, in libc => changes::mkostemp;
    /// mkstemps(3)
    required fn mkstemps(template: *mut c_char, suffix: c_int) -> c_int, in libc => changes::mkstemps;
    /// mkostemps(3)
    required fn mkostemps(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int, in libc => changes::mkostemps;
    /// utimensat(2)
    required fn utimensat(folder: c_int, path: *const c_char, times: *const timespec, flags: c_int) -> c_int, in libc => changes::utimensat;

    /// stat(2)
    required fn stat(path: *const c_char, out: *mut libc::stat) -> c_int, in libc => status::stat;
    /// lstat(2)
    required fn lstat(path: *const c_char, out: *mut libc::stat) -> c_int, in libc => status::lstat;
    /// fstat(2)
    required fn fstat(descriptor: c_int, out: *mut libc::stat) -> c_int, in libc => status::fstat;
    /// fstatat(2)
    required fn fstatat(folder: c_int, path: *const c_char, out: *mut libc::stat, flags: c_int) -> c_int, in libc => status::fstatat;
    /// stat(2), of programs with a 32-bit `off_t`
    required fn stat64(path: *const c_char, out: *mut libc::stat64) -> c_int, in libc => status::stat64;
    /// lstat(2), of programs with a 32-bit `off_t`
    required fn lstat64(path: *const c_char, out: *mut libc::stat64) -> c_int, in libc => status::lstat64;
    /// fstat(2), of programs with a 32-bit `off_t`
    required fn fstat64(descriptor: c_int, out: *mut libc::stat64) -> c_int, in libc => status::fstat64;
    /// fstatat(2), of programs with a 32-bit `off_t`
    required fn fstatat64(folder: c_int, path: *const c_char, out: *mut libc::stat64, flags: c_int) -> c_int, in libc => status::fstatat64;
    /// statx(2)
    required fn statx(folder: c_int, path: *const c_char, flags: c_int, mask: c_uint, out: *mut libc::statx) -> c_int, in libc => status::statx;
    /// stat(2) of programs built before glibc 2.33
    optional fn __xstat(version: c_int, path: *const c_char, out: *mut libc::stat) -> c_int, in lsb => status::__xstat;
    /// lstat(2) of programs built before glibc 2.33
    optional fn __lxstat(version: c_int, path: *const c_char, out: *mut libc::stat) -> c_int, in lsb => status::__lxstat;
    /// fstat(2) of programs built before glibc 2.33
    optional fn __fxstat(version: c_int, descriptor: c_int, out: *mut libc::stat) -> c_int, in lsb => status::__fxstat;
    /// fstatat(2) of programs built before glibc 2.33
    optional fn __fxstatat(version: c_int, folder: c_int, path: *const c_char, out: *mut libc::stat, flags: c_int) -> c_int, in lsb => status::__fxstatat;
    /// stat(2) of programs built before glibc 2.33
    optional fn __xstat64(version: c_int, path: *const c_char, out: *mut libc::stat64) -> c_int, in lsb => status::__xstat64;
    /// lstat(2) of programs built before glibc 2.33
    optional fn __lxstat64(version: c_int, path: *const c_char, out: *mut libc::stat64) -> c_int, in lsb => status::__lxstat64;
    /// fstat(2) of programs built before glibc 2.33
    optional fn __fxstat64(version: c_int, descriptor: c_int, out: *mut libc::stat64) -> c_int, in lsb => status::__fxstat64;
    /// fstatat(2) of programs built before glibc 2.33
    optional fn __fxstatat64(version: c_int, folder: c_int, path: *const c_char, out: *mut libc::stat64, flags: c_int) -> c_int, in lsb => status::__fxstatat64;

    /// opendir(3)
    required fn opendir(path: *const c_char) -> *mut DIR, in libc => folders::opendir;
    /// fdopendir(3)
    required fn fdopendir(descriptor: c_int) -> *mut DIR, in libc => folders::fdopendir;
    /// readdir(3)
    required fn readdir(stream: *mut DIR) -> *mut dirent, in libc => folders::readdir;
    /// readdir(3), of programs with a 32-bit `off_t`
    required fn readdir64(stream: *mut DIR) -> *mut dirent64, in libc => folders::readdir64;
    /// readdir_r(3)
    required fn readdir_r(stream: *mut DIR, entry: *mut dirent, result: *mut *mut dirent) -> c_int, in libc => folders::readdir_r;
    /// readdir_r(3), of programs with a 32-bit `off_t`
    required fn readdir64_r(stream: *mut DIR, entry: *mut dirent64, result: *mut *mut dirent64) -> c_int, in libc => folders::readdir64_r;
    /// scandir(3): libc's own would read the folder by calls that nobody sees
    required fn scandir(path: *const c_char, list: *mut *mut *mut dirent, filter: Option<Filter<dirent>>, compare: Option<Compare<dirent>>) -> c_int, in lsb => folders::scandir;
    /// scandir(3), of programs with a 32-bit `off_t`
    required fn scandir64(path: *const c_char, list: *mut *mut *mut dirent64, filter: Option<Filter<dirent64>>, compare: Option<Compare<dirent64>>) -> c_int, in lsb => folders::scandir64;
    /// closedir(3)
    required fn closedir(stream: *mut DIR) -> c_int, in libc => folders::closedir;
    /// rewinddir(3)
    required fn rewinddir(stream: *mut DIR) -> (), in libc => folders::rewinddir;
    /// telldir(3)
    required fn telldir(stream: *mut DIR) -> c_long, in libc => folders::telldir;
    /// seekdir(3)
    required fn seekdir(stream: *mut DIR, position: c_long) -> (), in libc => folders::seekdir;
    /// dirfd(3)
    required fn dirfd(stream: *mut DIR) -> c_int, in libc => folders::dirfd;

    /// connect(2)
    required fn connect(socket: c_int, address: *const sockaddr, size: socklen_t) -> c_int, in libc => network::connect;
    /// getpeername(2)
    required fn getpeername(socket: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int, in libc => network::getpeername;
    /// getsockname(2)
    required fn getsockname(socket: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int, in libc => network::getsockname;
    /// getaddrinfo(3). Its list is made of libc's own lists, so freeaddrinfo(3) is libc's.
    required fn getaddrinfo(node: *const c_char, service: *const c_char, hints: *const addrinfo, result: *mut *mut addrinfo) -> c_int, in libc => names::getaddrinfo;

    /// gethostbyname(3)
    required fn gethostbyname(name: *const c_char) -> *mut hostent, in lsb => hosts::gethostbyname;
    /// gethostbyname2(3)
    required fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent, in lsb => hosts::gethostbyname2;
    /// gethostbyname_r(3)
    required fn gethostbyname_r(name: *const c_char, entry: *mut hostent, buffer: *mut c_char, size: size_t, result: *mut *mut hostent, error: *mut c_int) -> c_int, in lsb => hosts::gethostbyname_r;
    /// gethostbyname2_r(3)
    required fn gethostbyname2_r(name: *const c_char, family: c_int, entry: *mut hostent, buffer: *mut c_char, size: size_t, result: *mut *mut hostent, error: *mut c_int) -> c_int, in lsb => hosts::gethostbyname2_r;
    /// syscall(2): libuv, for one, makes its statx so
    required fn syscall(number: c_long; a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long, in libc => direct::syscall;

    /// execve(2)
    required fn execve(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int, in libc => exec::execve;
    /// execv(3)
    required fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int, in libc => exec::execv;
    /// execvp(3)
    required fn execvp(file: *const c_char, arguments: *const *const c_char) -> c_int, in libc => exec::execvp;
    /// execvpe(3)
    required fn execvpe(file: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int, in libc => exec::execvpe;
    /// fexecve(3)
    required fn fexecve(descriptor: c_int, arguments: *const *const c_char, environment: *const *const c_char) -> c_int, in libc => exec::fexecve;
    /// execveat(2)
    optional fn execveat(folder: c_int, path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char, flags: c_int) -> c_int, in lsb => exec::execveat;
    /// posix_spawn(3)
    required fn posix_spawn(pid: *mut pid_t, path: *const c_char, actions: *const posix_spawn_file_actions_t, attributes: *const posix_spawnattr_t, arguments: *const *mut c_char, environment: *const *mut c_char) -> c_int, in libc => exec::posix_spawn;
    /// posix_spawnp(3)
    required fn posix_spawnp(pid: *mut pid_t, file: *const c_char, actions: *const posix_spawn_file_actions_t, attributes: *const posix_spawnattr_t, arguments: *const *mut c_char, environment: *const *mut c_char) -> c_int, in libc => exec::posix_spawnp;
}
