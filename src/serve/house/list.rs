//! What is told of all models, loaded or not: by their headers, so that asking loads nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use super::keeper::House;
use super::offer::Offer;
use crate::serve::error::ApiError;
use crate::serve::fields::{self, Fields};
use crate::serve::ollama::{described, shown};

/// The names of all models.
pub(super) fn names(house: &House) -> String {
    let names: Vec<String> = house.offers.iter().map(Offer::name).collect();
    names.join(", ")
}

/// 404, and what there is.
pub(super) fn unknown(house: &House, name: &str) -> ApiError {
    ApiError::no_model(name, &names(house))
}

/// `/v1/models`.
pub(super) async fn openai(State(house): State<Arc<House>>) -> Json<Value> {
    let data: Vec<Value> = (0..house.offers.len()).map(|which| entry(&house, which)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// `/v1/models/NAME`.
pub(super) async fn one(
    State(house): State<Arc<House>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let which = house.named(&name).ok_or_else(|| unknown(&house, &name))?;
    Ok(Json(entry(&house, which)))
}

fn entry(house: &House, which: usize) -> Value {
    let offer = &house.offers[which];
    let is_loaded = house.rooms.loaded().iter().any(|loaded| loaded.which == which);
    json!({
        "id": offer.name(), "object": "model", "created": house.front.started,
        "owned_by": "airrun",
        "status": {"value": if is_loaded { "loaded" } else { "unloaded" }},
        "meta": {
            "n_ctx_train": offer.index.context_length(),
            "n_params": offer.index.parameters(), "size": offer.index.bytes(),
        },
    })
}

/// `/api/tags`.
pub(super) async fn tags(State(house): State<Arc<House>>) -> Json<Value> {
    let entry = |offer: &Offer| described(&offer.name(), &offer.index);
    Json(json!({ "models": house.offers.iter().map(entry).collect::<Vec<_>>() }))
}

/// `/api/ps`: those that are loaded.
pub(super) async fn ps(State(house): State<Arc<House>>) -> Json<Value> {
    let mut models = Vec::new();
    for loaded in house.rooms.loaded() {
        let offer = &house.offers[loaded.which];
        let mut entry = described(&offer.name(), &offer.index);
        let left = loaded.left.and_then(|left| TimeDelta::from_std(left).ok());
        let later = Utc::now() + left.unwrap_or(TimeDelta::days(365));
        entry["expires_at"] = later.to_rfc3339_opts(SecondsFormat::Nanos, true).into();
        entry["size"] = json!(loaded.bytes);
        entry["size_vram"] = 0.into();
        if let Ok(served) = loaded.server.model() {
            entry["context_length"] = served.n_ctx.into();
        }
        models.push(entry);
    }
    Json(json!({ "models": models }))
}

/// `/api/show`.
pub(super) async fn show(
    State(house): State<Arc<House>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = fields::read(&house.front, request).await?;
    let fields = Fields::of(&body);
    let name = fields.text("model")?.or(fields.text("name")?);
    let name = name.ok_or_else(|| fields.wrong("model", "there"))?;
    let which = house.named(name).ok_or_else(|| unknown(&house, name))?;
    let offer = &house.offers[which];
    let served = house.rooms.loaded().into_iter().find(|loaded| loaded.which == which);
    let n_ctx = served.and_then(|loaded| loaded.server.model().map(|served| served.n_ctx).ok());
    let trained = offer.index.context_length().and_then(|n| u32::try_from(n).ok());
    let n_ctx = n_ctx.or(trained).unwrap_or(0);
    Ok(Json(shown(&offer.name(), &offer.index, &offer.preset, n_ctx, None)))
}
