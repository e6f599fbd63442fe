//! What Ollama's clients want done with models: downloads, where this server was started to make them, told line by line; and, in words,
//! that files of models are nobody's to change from afar. It fetches nothing: who does is handed in.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::serve::error::ApiError;
use crate::serve::fields::{self, Fields};
use crate::serve::server::Server;

/// How often a client hears how far its download is.
const OFTEN: Duration = Duration::from_millis(200);

/// A download under way.
pub trait Download: Send + Sync {
    /// What is being done.
    fn step(&self) -> String;
    /// Bytes that are there, and all, of the file under way.
    fn bytes(&self) -> (u64, u64);
    /// The model's name once it is there, or why it never will be.
    fn outcome(&self) -> Option<Result<String, String>>;
}

/// Begins downloads, or takes part in one of the same model.
type Begin = Arc<dyn Fn(&str) -> Result<Arc<dyn Download>, String> + Send + Sync>;

/// Who begins downloads.
#[derive(Clone)]
pub struct Puller(Begin);

impl Puller {
    /// One that begins downloads so.
    pub fn new(
        begin: impl Fn(&str) -> Result<Arc<dyn Download>, String> + Send + Sync + 'static,
    ) -> Puller {
        Puller(Arc::new(begin))
    }
}

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Puller")
    }
}

/// `/api/pull`, where one model is served.
pub(in crate::serve) async fn pull(
    State(server): State<Arc<Server>>,
    request: Request,
) -> Result<Response, ApiError> {
    let known =
        |name: &str| server.model().is_ok_and(|served| server.named(served, Some(name)).is_ok());
    pulled(&server, request, known).await
}

/// Downloads what a request names, unless the server has it: that is `known`.
pub(in crate::serve) async fn pulled(
    server: &Server,
    request: Request,
    known: impl Fn(&str) -> bool,
) -> Result<Response, ApiError> {
    let body = fields::read(server, request).await?;
    let fields = Fields::of(&body);
    let name = fields.text("model")?.or(fields.text("name")?);
    let name =
        name.filter(|name| !name.is_empty()).ok_or_else(|| fields.wrong("model", "there"))?;
    let streams = fields.flag("stream")?.unwrap_or(true);
    if known(name) {
        let done = json!({"status": "success"});
        return Ok(if streams {
            lines(Body::from(line(&done)))
        } else {
            Json(done).into_response()
        });
    }
    let Some(Puller(begin)) = server.config.pull.clone() else {
        let message = format!(
            "model '{name}' is not here, and this server downloads none (`airrun serve --pull` does, and so does `airrun pull`)"
        );
        return Err(ApiError::forbidden(message));
    };
    let name = name.to_owned();
    let download = tokio::task::block_in_place(|| begin(&name)).map_err(ApiError::bad)?;
    let (sender, receiver) = mpsc::channel(1);
    let telling = tokio::spawn(tell(download, sender));
    if streams {
        let pieces = ReceiverStream::new(receiver).map_lines();
        return Ok(lines(Body::from_stream(pieces)));
    }
    // Nobody hears how far it is.
    drop(receiver);
    let outcome = telling.await.unwrap_or_else(|_| Err("the download went wrong".to_owned()));
    outcome.map(|_| Json(json!({"status": "success"})).into_response()).map_err(ApiError::internal)
}

trait Lines {
    fn map_lines(self) -> impl tokio_stream::Stream<Item = Result<Bytes, Infallible>>;
}

impl Lines for ReceiverStream<Value> {
    fn map_lines(self) -> impl tokio_stream::Stream<Item = Result<Bytes, Infallible>> {
        tokio_stream::StreamExt::map(self, |value| Ok(Bytes::from(line(&value))))
    }
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

fn lines(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Tells how far a download is, until it has ended; goes on to the end also where nobody listens.
async fn tell(download: Arc<dyn Download>, sender: mpsc::Sender<Value>) -> Result<String, String> {
    let mut told = Value::Null;
    loop {
        let outcome = download.outcome();
        let (done, all) = download.bytes();
        let mut news = json!({ "status": download.step() });
        if all > 0 {
            (news["total"], news["completed"]) = (all.into(), done.min(all).into());
        }
        if news != told {
            told = news.clone();
            let _ = sender.send(news).await;
        }
        if let Some(outcome) = outcome {
            let last = match &outcome {
                Ok(name) => {
                    let remark =
                        format!("downloaded as {name}, and served when the server starts anew");
                    let _ = sender.send(json!({ "status": remark })).await;
                    json!({"status": "success"})
                }
                Err(why) => json!({ "error": why }),
            };
            let _ = sender.send(last).await;
            return outcome;
        }
        tokio::time::sleep(OFTEN).await;
    }
}

/// What would change the files of models.
pub(in crate::serve) async fn not_here(request: Request) -> ApiError {
    let path = request.uri().path();
    let instead = match path {
        "/api/delete" => "delete the file itself: `airrun list` says where it is",
        "/api/copy" => "a model has other names with `airrun serve MODEL --name NAME`",
        "/api/create" => {
            "settings are flags of `airrun serve`, and `airrun quantize` makes smaller models"
        }
        _ => "models are files, which are copied as files",
    };
    ApiError::forbidden(format!("'{path}' is not served: this server changes no models; {instead}"))
}
