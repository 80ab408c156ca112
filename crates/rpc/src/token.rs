//! The secret that the nodes of a cluster share, as a header of every call.

use std::sync::Arc;

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

const HEADER: &str = "tangelo-cluster-token";

/// The token cannot be sent in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cluster token must be 1 to 512 visible ASCII characters")]
pub struct TokenError;

/// A shared secret. Its value is never shown, not in logs either.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterToken(Arc<str>);

impl ClusterToken {
    /// Checks and wraps a token.
    ///
    /// # Errors
    ///
    /// If it is empty, over 512 bytes, or has a character that is no visible ASCII.
    pub fn new(token: &str) -> Result<Self, TokenError> {
        let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.is_empty() || token.len() > 512 || !visible {
            return Err(TokenError);
        }
        Ok(Self(token.into()))
    }

    /// Compares in a time that tells nothing but the length.
    fn matches(&self, other: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let difference = own.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b));
        own.len() == other.len() && std::hint::black_box(difference) == 0
    }
}

impl std::fmt::Debug for ClusterToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterToken(..)")
    }
}

/// Puts the token, if there is one, into every call of a client.
#[derive(Clone, Debug)]
pub struct AttachToken(Option<MetadataValue<Ascii>>);

impl AttachToken {
    /// Attaches `token`.
    #[must_use]
    pub fn new(token: Option<&ClusterToken>) -> Self {
        // A checked token is a valid header value.
        let value = token.and_then(|token| MetadataValue::try_from(&*token.0).ok());
        Self(value.map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }
}

impl Interceptor for AttachToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert(HEADER, value.clone());
        }
        Ok(request)
    }
}

/// Refuses every call to a server that does not bring the token, if there is one.
#[derive(Clone, Debug)]
pub struct RequireToken(Option<ClusterToken>);

impl RequireToken {
    /// Requires `token`; `None` lets everybody in.
    #[must_use]
    pub const fn new(token: Option<ClusterToken>) -> Self {
        Self(token)
    }
}

impl Interceptor for RequireToken {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(token) = &self.0 else {
            return Ok(request);
        };
        let given = request.metadata().get(HEADER);
        if given.is_some_and(|given| token.matches(given.as_bytes())) {
            return Ok(request);
        }
        Err(Status::unauthenticated("the cluster token is missing or wrong"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_gets_in() {
        let token = ClusterToken::new("s3cret").unwrap();
        let mut gatekeeper = RequireToken::new(Some(token.clone()));
        for wrong in [None, Some("s3crex"), Some("s3cret1"), Some("s")] {
            let wrong = wrong.map(|token| ClusterToken::new(token).unwrap());
            let request = AttachToken::new(wrong.as_ref()).call(Request::new(()));
            assert!(gatekeeper.call(request.unwrap()).is_err());
        }
        let request = AttachToken::new(Some(&token)).call(Request::new(()));
        assert!(gatekeeper.call(request.unwrap()).is_ok());
        assert!(RequireToken::new(None).call(Request::new(())).is_ok());
    }

    #[test]
    fn tokens_are_checked_and_not_shown() {
        for bad in ["", "a b", "ä", "a\n", &"x".repeat(513)] {
            assert_eq!(ClusterToken::new(bad), Err(TokenError));
        }
        let shown = format!("{:?}", ClusterToken::new("s3cret"));
        assert!(!shown.contains("s3cret"));
    }
}
