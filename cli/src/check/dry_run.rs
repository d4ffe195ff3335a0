//! Creates pods in dry runs: the API server admits or refuses them as if it meant it, and stores nothing.
//!
//! kube's typed calls drop the answer's headers, where admission's warnings are, so requests are sent by hand.

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client, Resource,
    api::PostParams,
    client::Body,
    core::{Request, Status},
};
use serde_json::Value;

use crate::kubernetes::server::in_time;

/// Requests at once: the API server has others to serve.
const AT_ONCE: usize = 8;

/// What the API server said to a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It would be stored, like this.
    Admitted {
        /// The pod as it would be.
        pod: Box<Value>,
        /// What admission had to say.
        warnings: Vec<String>,
    },
    /// It would be refused.
    Refused(String),
    /// It could not be asked.
    Failed(String),
}

/// Asks for each pod, a few at a time; answers are in the order of the pods.
pub async fn create_all(client: &Client, pods: Vec<Value>) -> Vec<Answer> {
    stream::iter(pods).map(|pod| async move { create(client, &pod).await }).buffered(AT_ONCE).collect().await
}

/// Asks for one pod.
pub async fn create(client: &Client, pod: &Value) -> Answer {
    match in_time(ask(client, pod)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Failed(error.to_string()),
        Err(late) => Answer::Failed(late.to_string()),
    }
}

async fn ask(client: &Client, pod: &Value) -> Result<Answer, kube::Error> {
    let namespace = pod["metadata"]["namespace"].as_str();
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let request = Request::new(Pod::url_path(&(), namespace))
        .create(&parameters, pod.to_string().into_bytes())
        .map_err(kube::Error::BuildRequest)?;
    let answer = client.send(request.map(Body::from)).await?;
    let headers = answer.headers().get_all("warning").iter();
    let warnings = headers.filter_map(|value| warning(value.to_str().ok()?)).collect();
    let admitted = answer.status().is_success();
    let body = answer.into_body().collect_bytes().await?;
    if admitted {
        let pod = serde_json::from_slice(&body).map_err(kube::Error::SerdeError)?;
        return Ok(Answer::Admitted { pod, warnings });
    }
    let status: Status = serde_json::from_slice(&body).map_err(kube::Error::SerdeError)?;
    Ok(refusal(&status))
}

fn refusal(status: &Status) -> Answer {
    match status.code {
        400 | 403 | 409 | 422 => Answer::Refused(status.message.clone()),
        _ => Answer::Failed(status.message.clone()),
    }
}

/// The text of a Warning header (RFC 7234 §5.5): `299 - "text"`.
fn warning(header: &str) -> Option<String> {
    let (begin, end) = (header.find('"')? + 1, header.rfind('"')?);
    let mut text = String::new();
    let mut escaped = false;
    for letter in header.get(begin..end)?.chars() {
        escaped = letter == '\\' && !escaped;
        if !escaped {
            text.push(letter);
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_read_from_its_header() {
        let header = r#"299 - "mirrord: not injected: a \"name\" with \\""#;
        assert_eq!(warning(header).unwrap(), r#"mirrord: not injected: a "name" with \"#);
        assert_eq!(warning("299 -"), None);
    }

    #[test]
    fn a_refusal_is_told_from_a_fault() {
        let status = |code: u16| Status { code, message: "m".to_owned(), ..Status::default() };
        assert_eq!(refusal(&status(403)), Answer::Refused("m".to_owned()));
        assert_eq!(refusal(&status(500)), Answer::Failed("m".to_owned()));
    }
}
