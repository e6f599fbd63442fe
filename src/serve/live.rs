//! What goes on, for the page: the model and its plan once, and ten times a second what each block is doing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::error::ApiError;
use super::preset::Preset;
use super::server::{Served, Server};
use crate::engine::{SamplerSettings, Tier, UnitState};

/// Time between two events.
const INTERVAL: Duration = Duration::from_millis(100);

/// Rates are those of this many intervals.
const WINDOW: usize = 10;

/// `/api/airrun/status`: the model, where it lives, and the rates.
pub(super) async fn status(State(server): State<Arc<Server>>) -> Result<Response, ApiError> {
    let served = server.model()?;
    let mut status = describe(served, &server.config.preset);
    status["now"] = now(&server, served, &mut Vec::new());
    if let Some(watch) = served.engine.monitor().experts() {
        status["experts"] = json!(watch.blocks());
    }
    Ok(Json(status).into_response())
}

/// `/api/airrun/experts`, for a map of them: for each block that has some that stream one by one, `name`, `uses`, `misses`, `bytes`, and
/// `experts`, a character each: `.` is one that is not in memory, `+` one that is being read, `0` to `9` how much those that are there
/// are used.
pub(super) async fn experts(State(server): State<Arc<Server>>) -> Result<Response, ApiError> {
    let monitor = server.model()?.engine.monitor();
    let blocks = monitor.experts().map(|watch| watch.blocks()).unwrap_or_default();
    Ok(Json(blocks).into_response())
}

/// The model and its plan.
fn describe(served: &Served, preset: &Preset) -> Value {
    let engine = &served.engine;
    let (index, plan) = (engine.index(), engine.plan());
    let held = || plan.further.iter().zip(engine.further_devices());
    let device = |i| held().find(|(held, _)| held.blocks.contains(&i)).map(|(_, name)| name);
    let blocks = plan.blocks.iter().enumerate().map(|(i, block)| {
        json!({
            "name": block.place.to_string(),
            "device": device(i),
            "tier": tier(block.tier),
            "partly": block.partly,
            "bytes": block.len,
            "streamed_bytes": block.streamed,
        })
    });
    let units = plan
        .streamed
        .iter()
        .map(|unit| json!({"name": unit.name, "block": unit.block, "bytes": unit.len}));
    json!({
        "model": served.name,
        "title": index.name(),
        "architecture": index.architecture(),
        "quantisation": index.file_type_name(),
        "parameters": index.parameters(),
        "bytes": index.bytes(),
        "where": engine.describe(),
        "defaults": defaults(preset),
        "warnings": served.warnings,
        "plan": {
            "gpu": plan.gpu.is_some(),
            "n_ctx": plan.n_ctx,
            "n_ctx_per_request": served.n_ctx,
            "parallel": served.parallel,
            "n_slots": plan.n_slots,
            "slot_bytes": plan.slot,
            "n_ubatch": plan.n_ubatch,
            "n_ctx_train": index.context_length(),
            "ram": plan.memory,
            "peak_bytes": plan.memory.peak(),
            "streamed_bytes": plan.streamed_bytes(),
            "blocks": blocks.collect::<Value>(),
            "units": units.collect::<Value>(),
            "experts": plan.experts.as_ref().map(|experts| json!({
                "used": experts.used,
                "kept_of_each_block": experts.n_slots,
                "bytes": experts.pool,
            })),
        },
    })
}

/// How tokens are chosen where a request does not say.
fn defaults(preset: &Preset) -> Value {
    let settings = preset.over(SamplerSettings::default());
    // What was meant as 0.8 is not told as 0.800000011920929.
    let short = |x: f32| format!("{x}").parse::<f64>().unwrap_or(0.0);
    json!({
        "temperature": short(settings.temp), "top_p": short(settings.top_p),
        "top_k": settings.top_k, "min_p": short(settings.min_p),
        "repeat_penalty": short(settings.repeat_penalty), "max_tokens": preset.max_tokens, "seed": settings.seed,
        "presence_penalty": short(settings.presence_penalty),
        "frequency_penalty": short(settings.frequency_penalty),
        "dry_multiplier": short(settings.dry.multiplier), "xtc_probability": short(settings.xtc_probability),
        "stop": preset.stops, "think": preset.thinking.name(), "system": preset.system,
    })
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Resident => "resident",
        Tier::Cpu => "cpu",
        Tier::Host => "host",
        Tier::Streamed => "streamed",
    }
}

fn state(state: UnitState) -> &'static str {
    match state {
        UnitState::Idle => "idle",
        UnitState::Reading => "reading",
        UnitState::Ready => "ready",
        UnitState::Computing => "computing",
    }
}

/// Counters at a time.
struct Sample {
    at: Instant,
    bytes: f64,
}

/// What goes on right now; rates are taken from the oldest of `samples` on.
fn now(server: &Server, served: &Served, samples: &mut Vec<Sample>) -> Value {
    let monitor = served.engine.monitor();
    let progress = monitor.snapshot();
    #[expect(clippy::cast_precision_loss, reason = "rates need no exact counts")]
    let tokens = server.metrics.generated_tokens.get() as f64;
    samples.push(Sample { at: Instant::now(), bytes: progress.streamed.f64() });
    if samples.len() > WINDOW {
        samples.remove(0);
    }
    let (old, new) = (&samples[0], &samples[samples.len() - 1]);
    let seconds = (new.at - old.at).as_secs_f64();
    let rate = |old: f64, new: f64| if seconds > 0.0 { (new - old) / seconds } else { 0.0 };
    let experts = monitor.experts().map(|watch| {
        let counts = watch.counts();
        json!({
            "uses": counts.uses,
            "misses": counts.misses,
            "bytes": counts.bytes,
            "copied": counts.copied,
            "hit_rate": counts.hit_rate(),
            "device_hit_rate": counts.device_rate(),
        })
    });
    let (done, next) = served.engine.pace().pass(&progress);
    json!({
        "experts": experts,
        "units": monitor.states().into_iter().map(state).collect::<Vec<_>>(),
        "run": progress.block,
        "n_runs": progress.n_blocks,
        "pass_done": done,
        "pass_next": next,
        "passes": progress.passes,
        "streamed_bytes": progress.streamed,
        "stall_seconds": progress.stall_seconds,
        "bytes_per_second": rate(old.bytes, new.bytes),
        "tokens": tokens,
        "tokens_per_second": if server.metrics.running.get() > 0 { server.metrics.tokens_per_second() } else { 0.0 },
        "pass_seconds": server.metrics.pass.elapsed().map(|elapsed| elapsed.as_secs_f64()),
        "running": server.metrics.running.get(),
        "waiting": server.waiting(),
    })
}

/// `/api/airrun/events`: what `status` calls `now`, as server-sent events, until the client or the server goes.
pub(super) async fn events(State(server): State<Arc<Server>>) -> Result<Response, ApiError> {
    server.model()?;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let mut samples = Vec::new();
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = server.draining() => return,
                () = sender.closed() => return,
            }
            let Ok(served) = server.model() else { return };
            let event = format!("data: {}\n\n", now(&server, served, &mut samples));
            // A client that is slower than the ticks gets fewer events.
            let _ = sender.try_send(event.into());
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, std::io::Error>));
    let head = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((head, body).into_response())
}
