//! Connections and names, as real programs use them.

use std::net::TcpListener;

use crate::world::{World, echo_server, web_server};

#[test]
fn python_talks_to_a_remote_server() {
    let world = World::new();
    world.route("10.1.2.3:7000", echo_server("127.0.0.1:0"));
    let script = "
import socket
with socket.create_connection(('10.1.2.3', 7000)) as s:
    print(s.getpeername(), s.getsockname())
    s.sendall(b'question')
    s.shutdown(socket.SHUT_WR)
    print(s.makefile('rb').read().decode())
";
    let expected = "('10.1.2.3', 7000) ('10.9.9.9', 40000)\nwelcome\nquestion\n";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), expected);
}

#[test]
fn python_resolves_remote_names() {
    let world = World::new();
    world.name("db", &["10.0.0.5", "2001:db8::5"]);
    let script = "
import socket
for entry in socket.getaddrinfo('db', 'http', type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME): print(entry)
print(sorted(set(entry[4] for entry in socket.getaddrinfo('db', 5432, family=socket.AF_INET))))
try: socket.getaddrinfo('nothing', 1)
except socket.gaierror as error: print(error.errno == socket.EAI_NONAME)
";
    let expected = "\
(<AddressFamily.AF_INET: 2>, <SocketKind.SOCK_STREAM: 1>, 6, 'db.pod.test', ('10.0.0.5', 80))
(<AddressFamily.AF_INET6: 10>, <SocketKind.SOCK_STREAM: 1>, 6, '', ('2001:db8::5', 80, 0, 0))
[('10.0.0.5', 5432)]
True
";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), expected);
}

/// Nothing listens there any more.
fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn curl_fetches_a_page_by_name_without_blocking() {
    let world = World::new();
    world.name("shop.default.svc", &["10.1.2.4"]);
    world.route("10.1.2.4:80", web_server("a page of the shop\n"));
    let page = world.run(&["curl", "-sS", "--noproxy", "*", "http://shop.default.svc/"]).ok();
    assert_eq!(page, "a page of the shop\n");
    let format = "%{remote_ip}:%{remote_port} %{local_ip}";
    let line = ["curl", "-sS", "--noproxy", "*", "-o", "/dev/null", "-w", format, "http://shop.default.svc/"];
    assert_eq!(world.run(&line).ok(), "10.1.2.4:80 10.9.9.9");
}

#[test]
fn a_refusal_in_the_pod_is_the_programs_own() {
    let world = World::new();
    world.route("10.1.2.3:81", nobody());
    let script = "
import socket, errno
for address, timeout in [(('10.1.2.3', 81), None), (('10.1.2.3', 81), 5), (('10.99.0.1', 1), None)]:
    s = socket.socket()
    s.settimeout(timeout)
    print(errno.errorcode[s.connect_ex(address)])
";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), "ECONNREFUSED\nECONNREFUSED\nENETUNREACH\n");
}

#[test]
fn an_ipv6_socket_reaches_ipv6_and_mapped_addresses() {
    let world = World::new();
    let server = echo_server("127.0.0.1:0");
    world.route("[2001:db8::7]:7000", server);
    world.route("10.1.2.3:7000", server);
    let script = "
import socket
for address in ['2001:db8::7', '::ffff:10.1.2.3']:
    for only in [0, 1]:
        if only and 'ffff' in address: continue
        s = socket.socket(socket.AF_INET6)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        s.connect((address, 7000))
        print(s.recv(100), s.getpeername()[:2], s.getsockname()[0])
";
    let expected = "\
b'welcome\\n' ('2001:db8::7', 7000) 2001:db8::aa
b'welcome\\n' ('2001:db8::7', 7000) 2001:db8::aa
b'welcome\\n' ('::ffff:10.1.2.3', 7000) ::ffff:10.9.9.9
";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), expected);
}

#[test]
fn a_socket_keeps_its_number_options_and_registration() {
    let world = World::new();
    world.route("10.1.2.3:7000", echo_server("127.0.0.1:0"));
    let script = "
import socket, select, errno
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
s.setblocking(False)
poll = select.epoll()
poll.register(s, select.EPOLLIN)
before = s.fileno()
code = s.connect_ex(('10.1.2.3', 7000))
print(code in (0, errno.EINPROGRESS))
events = poll.poll(10)
while not any(event & select.EPOLLIN for _, event in events): events = poll.poll(10)
print([number == before for number, event in events])
print(s.recv(100), s.fileno() == before, s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
print(s.connect_ex(('10.1.2.3', 7000)) in (0, errno.EISCONN), errno.errorcode[s.connect_ex(('10.1.2.3', 7000))])
";
    let expected = "True\n[True]\nb'welcome\\n' True 1\nTrue EISCONN\n";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), expected);
    assert_eq!(world.pod.count("Connect"), 1, "the second connect asks only the kernel");
}

#[test]
fn a_socket_that_is_disconnected_can_connect_elsewhere() {
    let world = World::new();
    world.route("10.1.2.3:7000", echo_server("127.0.0.1:0"));
    world.route("10.1.2.3:7001", echo_server("127.0.0.1:0"));
    let source = r#"
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    for (int port = 7000; port < 7002; port++) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, is;
        socklen_t size = sizeof is;
        inet_pton(AF_INET, "10.1.2.3", &to.sin_addr);
        if (connect(s, (struct sockaddr *)&to, sizeof to)) return 1;
        if (getpeername(s, (struct sockaddr *)&is, &size) || size != sizeof is) return 2;
        printf("%s %d\n", inet_ntoa(is.sin_addr), ntohs(is.sin_port));
        struct sockaddr none = {.sa_family = AF_UNSPEC};
        if (connect(s, &none, sizeof none)) return 3;
        if (!getpeername(s, (struct sockaddr *)&is, &size)) return 4;
    }
    return 0;
}
"#;
    let program = world.compile("again", source, &[]);
    assert_eq!(world.run(&[program]).ok(), "10.1.2.3 7000\n10.1.2.3 7001\n");
}

#[test]
fn loopback_and_local_names_stay_local() {
    let world = World::new();
    let port = web_server("local page\n").port();
    let page =
        |host: &str| world.run(&["curl", "-sS", "--noproxy", "*", &format!("http://{host}:{port}/")]).ok();
    assert_eq!(page("127.0.0.1"), "local page\n");
    assert_eq!(page("localhost"), "local page\n");
    assert_eq!((world.pod.count("Connect"), world.pod.count("Resolve")), (0, 0));
}

#[test]
fn without_outgoing_the_network_is_local() {
    let world = World::with(|settings| settings.outgoing = false);
    let script = "
import socket
s = socket.socket()
s.settimeout(0.01)
try: s.connect(('192.0.2.1', 9))
except OSError: print('no answer')
";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), "no answer\n");
    assert_eq!(world.pod.count("Connect"), 0);
}

#[test]
fn getaddrinfo_gives_every_kind_of_socket_and_services_by_name() {
    let world = World::new();
    world.name("db", &["10.0.0.5", "10.0.0.6"]);
    let script = "
import socket
for entry in socket.getaddrinfo('db', 'domain'): print(entry[1].name, entry[4])
for entry in socket.getaddrinfo('db', 53, family=socket.AF_INET6, type=socket.SOCK_STREAM, flags=socket.AI_V4MAPPED): print(entry[4])
try: socket.getaddrinfo('db', 'no-such-service')
except socket.gaierror as error: print(error.errno == socket.EAI_SERVICE)
print(socket.getaddrinfo('10.0.0.9', 80, type=socket.SOCK_STREAM)[0][4])
";
    let expected = "\
SOCK_STREAM ('10.0.0.5', 53)
SOCK_DGRAM ('10.0.0.5', 53)
SOCK_STREAM ('10.0.0.6', 53)
SOCK_DGRAM ('10.0.0.6', 53)
('::ffff:10.0.0.5', 53, 0, 0)
('::ffff:10.0.0.6', 53, 0, 0)
True
('10.0.0.9', 80)
";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), expected);
}

#[test]
fn perl_and_node_reach_remote_servers() {
    let world = World::new();
    world.name("echo", &["10.1.2.3"]);
    world.route("10.1.2.3:7000", echo_server("127.0.0.1:0"));
    let perl = "use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => '10.1.2.3:7000') or die $!; print scalar <$s>, $s->peerhost, qq(\\n)";
    assert_eq!(world.run(&["perl", "-e", perl]).ok(), "welcome\n10.1.2.3\n");
    let node = "const s = require('net').connect(7000, 'echo'); s.once('data', d => { console.log(d.toString().trim(), s.remoteAddress); s.destroy(); })";
    assert_eq!(world.run(&["node", "-e", node]).ok(), "welcome 10.1.2.3\n");
}

#[test]
fn the_elder_look_up_functions_ask_the_pod_too() {
    let world = World::new();
    world.name("db", &["10.0.0.5", "10.0.0.6"]);
    let script = "
import socket
print(socket.gethostbyname('db'), socket.gethostbyname_ex('db'))
try: socket.gethostbyname_ex('nothing')
except (socket.herror, socket.gaierror) as error: print('unknown')
print(socket.gethostbyname_ex('127.0.0.1')[2], socket.gethostbyname_ex('localhost')[2])
";
    let expected =
        "10.0.0.5 ('db.pod.test', [], ['10.0.0.5', '10.0.0.6'])\nunknown\n['127.0.0.1'] ['127.0.0.1']\n";
    assert_eq!(world.run(&["python3", "-c", script]).ok(), expected);
    let perl =
        "print join('.', unpack('C4', gethostbyname('db'))), ' ', defined gethostbyname('nothing') ? 1 : 0";
    assert_eq!(world.run(&["perl", "-e", perl]).ok(), "10.0.0.5 0");
}
