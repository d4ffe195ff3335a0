//! An API server that knows Sessions, over plain HTTP: it answers as it is told, and remembers what it was asked.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use mirrord_session::SessionStatus;
use serde_json::{Value, json};

#[derive(Clone)]
pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<Answer>>,
}

/// What a creation is answered with.
#[derive(Clone)]
pub(crate) enum Answer {
    /// A Session with this status.
    Status(Box<SessionStatus>),
    /// An error: code and body.
    Error(u16, Value),
}

impl ApiServer {
    pub(crate) fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            answer: Arc::new(Mutex::new(answer)),
        };
        let serving = server.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(&connection));
            }
        });
        server
    }

    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(crate) fn kubeconfig(&self) -> String {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}], \
             users: [{{name: u, user: {{token: t}}}}], contexts: [{{name: c, context: {{cluster: c, user: u, namespace: shop}}}}]}}",
            self.address
        )
    }

    /// How often it was asked so, by the beginning of `METHOD path`.
    pub(crate) fn count(&self, beginning: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.starts_with(beginning)).count()
    }

    fn serve(&self, connection: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(connection);
        loop {
            let mut request = String::new();
            reader.read_line(&mut request).ok()?;
            let mut words = request.split(' ');
            let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).ok()?;
                if header.trim().is_empty() {
                    break;
                }
                if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let (code, answer) = self.answer(&method, &path, &body);
            let text = answer.to_string();
            let head = format!(
                "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                text.len()
            );
            { connection }.write_all((head + &text).as_bytes()).ok()?;
        }
    }

    fn answer(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        self.asked.lock().unwrap().push(format!("{method} {path}"));
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let list = json!({ "apiVersion": "mirrord.dev/v1alpha1", "kind": "SessionList", "metadata": {}, "items": [] });
        match (method, self.answer.lock().unwrap().clone()) {
            ("POST" | "PATCH", Answer::Error(code, body)) => (code, body),
            ("POST", Answer::Status(status)) => {
                let mut session = sent;
                session["status"] = json!(status);
                (201, session)
            }
            ("PATCH", Answer::Status(status)) => (
                200,
                json!({ "apiVersion": "mirrord.dev/v1alpha1", "kind": "Session", "metadata": {}, "spec": {}, "status": status }),
            ),
            ("GET", _) => (200, list),
            _ => (200, json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })),
        }
    }
}
