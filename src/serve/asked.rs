//! What all paths of a model begin with: the model, and the object that a request's body is.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};

use super::error::ApiError;
use super::fields::{self, Body, Fields};
use super::server::{Served, Server};

/// A request to a model that is there.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) server: Arc<Server>,
    pub(super) body: Body,
}

impl FromRequest<Arc<Server>> for Asked {
    type Rejection = ApiError;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Asked, ApiError> {
        // What nobody can answer is not read.
        server.model()?;
        let body = fields::read(server, request).await?;
        Ok(Asked { server: server.clone(), body })
    }
}

impl Asked {
    /// Who serves, what is served, and what is asked.
    ///
    /// # Errors
    ///
    /// The server has ended meanwhile.
    pub(super) fn parts(&self) -> Result<(&Arc<Server>, &Served, Fields<'_>), ApiError> {
        Ok((&self.server, self.server.model()?, Fields::of(&self.body)))
    }
}
