//! Errors of the API: RFC 9457 problem documents with stable codes.
//!
//! Invariant: every answer that is not a success is one of these; `code` never changes its meaning, `detail` may change
//! its words. Called by all of `http`; read by `cli`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::log::LogError;
use crate::monitor::MonitorError;
use crate::node::NodeError;
use crate::node::bundle::BundleError;
use crate::sqlite::SqliteError;

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, detail: detail.into() }
    }

    /// A parameter or body that cannot be used.
    pub(super) fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// Something that is not there.
    pub(super) fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// The node has stopped, or its queue is full.
    pub(super) fn node_busy() -> Problem {
        let detail = "the node is stopping or has too many questions waiting: ask again in a second";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "node_busy", detail)
    }

    /// The node's thread did not come to the question in time.
    pub(super) fn timeout() -> Problem {
        let detail = "the node is at work and did not answer in time: ask again";
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "node_timeout", detail)
    }
}

impl From<NodeError> for Problem {
    fn from(error: NodeError) -> Problem {
        let (status, code) = match &error {
            NodeError::Invalid(_) => (StatusCode::NOT_FOUND, "not_found"),
            NodeError::NotEntitled(_) => (StatusCode::FORBIDDEN, "not_entitled"),
            NodeError::Sqlite(SqliteError::Busy) => (StatusCode::SERVICE_UNAVAILABLE, "node_busy"),
            NodeError::Sqlite(SqliteError::Exists { .. }) => (StatusCode::CONFLICT, "exists"),
            NodeError::Sqlite(SqliteError::Corrupt { .. })
            | NodeError::Wire(_)
            | NodeError::Record(_)
            | NodeError::Log(LogError::CorruptRecord { .. } | LogError::Archived { .. }) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "integrity")
            }
            NodeError::Io { .. } => (StatusCode::CONFLICT, "cannot_write"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "node_error"),
        };
        Problem::new(status, code, error.to_string())
    }
}

impl From<MonitorError> for Problem {
    fn from(error: MonitorError) -> Problem {
        let (status, code) = match &error {
            MonitorError::Held { .. } => (StatusCode::CONFLICT, "lease_held"),
            MonitorError::Ended { .. } => (StatusCode::CONFLICT, "run_ended"),
            MonitorError::Unknown(_) => (StatusCode::NOT_FOUND, "no_such_run"),
            MonitorError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            MonitorError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "node_busy"),
            MonitorError::Sqlite(_) => (StatusCode::INTERNAL_SERVER_ERROR, "monitor_error"),
        };
        Problem::new(status, code, error.to_string())
    }
}

impl From<BundleError> for Problem {
    fn from(error: BundleError) -> Problem {
        let damage = error.is_damage();
        let code = match error {
            BundleError::Node(error) => return error.into(),
            BundleError::Stopped => return Problem::node_busy(),
            BundleError::Read { .. } => "cannot_read",
            BundleError::Write { .. } | BundleError::Occupied { .. } => "cannot_write",
            _ if damage => "bundle_damaged",
            _ => "bundle_refused",
        };
        Problem::new(StatusCode::CONFLICT, code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        (self.status, [kind], body.to_string()).into_response()
    }
}
