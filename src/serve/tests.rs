//! What happens to clients when the worker fails: no answer looks complete, and the server ends with an error.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use super::job::Job;
use super::*;
use crate::engine::Index;
use crate::engine::LoadOptions;

fn open() -> anyhow::Result<Engine> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-chat-q4_k_m.gguf");
    let options = LoadOptions { threads: Some(1), embedding: true, ..LoadOptions::default() };
    Ok(Engine::open(Arc::new(Index::open(&model)?), &options)?)
}

pub(super) fn config() -> Config {
    Config {
        log: None,
        host: IpAddr::from([127, 0, 0, 1]),
        port: 0,
        queue: 8,
        api_key: None,
        host_names: Vec::new(),
        cors: None,
        preset: Preset::default(),
        grammars: false,
        prompt_cache: Bytes::ZERO,
        responses: ResponseStore::new(Bytes::ZERO),
        pull: None,
        max_body: Bytes(1 << 20),
        memory: Bytes(8 << 20),
        grace: Duration::from_secs(60),
        linger: Duration::from_secs(60),
        patience: Duration::from_secs(60),
        ping: Duration::from_secs(60),
    }
}

/// Sends a request, and reads until the server has no more to say.
fn ask(address: SocketAddr, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn when_the_worker_fails_everybody_is_told_and_the_server_ends() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let address = listener.local_addr().unwrap();
    // Room for all of them, whichever comes first: a request with many texts takes a place for each.
    let server = Arc::new(Server::new(Config { queue: 64, ..config() }, address));
    let (ready, is_ready) = oneshot::channel();
    let ready = Mutex::new(Some(ready));
    let attended = {
        let server = server.clone();
        runtime.spawn(async move {
            let tell = move |news: News<'_>| {
                if matches!(news, News::Ready(_)) {
                    let _ = ready.lock().unwrap().take().map(|ready| ready.send(()));
                }
            };
            attend(server, listener, open, &tell).await
        })
    };
    is_ready.blocking_recv().unwrap();
    let endless = r#""max_tokens":100000,"n":2,"ignore_eos":true,"prompt":"Once","#;
    // So many that not all vectors are there when the worker fails.
    let long = vec![format!(r#""{}""#, "word ".repeat(900)); 48].join(",");
    let long = format!(r#"{{"input":[{long}]}}"#);
    let requests = [
        ("/v1/completions", format!(r#"{{{endless}"stream":true}}"#)),
        ("/v1/completions", format!(r#"{{{endless}"stream":false}}"#)),
        (
            "/api/generate",
            r#"{"prompt":"Once","raw":true,"options":{"ignore_eos":true}}"#.to_owned(),
        ),
        ("/v1/embeddings", long),
    ];
    let told: Vec<String> = thread::scope(|scope| {
        let ask = |(path, body): &(&'static str, String)| {
            let (path, body) = (*path, body.clone());
            scope.spawn(move || ask(address, path, &body))
        };
        let clients: Vec<_> = requests.iter().map(ask).collect();
        while server.metrics.generated_tokens.get() < 9 {
            thread::sleep(Duration::from_millis(1));
        }
        server.queue.push(Job::Fail, server.queue.enter().unwrap()).unwrap();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for text in &told {
        assert!(text.contains(queue::ENDED), "{text}");
    }
    let ends = |text: &str, what: &str| text.matches(what).count();
    assert_eq!((ends(&told[0], queue::ENDED), ends(&told[0], "[DONE]")), (2, 0), "{}", told[0]);
    assert!(told[1].starts_with("HTTP/1.1 503") && told[3].starts_with("HTTP/1.1 503"), "{told:?}");
    let end = runtime.block_on(attended).unwrap();
    assert_eq!(end.unwrap_err().to_string(), queue::ENDED);
    assert!(server.model().is_err());
}
