//! Put-token: tells the broker's `$cbs` node that this connection may use a queue, and again before that ends.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use fe2o3_amqp::types::primitives::{SimpleValue, Timestamp, Value};
use tokio::sync::Mutex;

use crate::error::Failure;
use crate::message::milliseconds;
use crate::requests::Requests;
use crate::sas;
use crate::settings::Credential;

const SCOPE: &str = "https://servicebus.azure.net/.default";
/// Length of a signature.
const SIGNATURE_LIFE: Duration = Duration::from_secs(3600);
/// Renewed this long before its end; a token that lives less than twice as long, at half of its life.
const EARLY: Duration = Duration::from_secs(600);

/// What a connection may use.
#[derive(Debug)]
pub(crate) struct Claims {
    requests: Requests,
    /// When the claim for a queue is due again.
    due: Mutex<HashMap<String, SystemTime>>,
}

struct Proof {
    kind: &'static str,
    secret: String,
    expires_at: SystemTime,
}

impl Claims {
    pub(crate) fn new(requests: Requests) -> Self {
        Self { requests, due: Mutex::default() }
    }

    /// Puts a token for a queue unless one is there that still lasts. Every operation asks first: a link is never
    /// used for longer than a token lasts after that.
    pub(crate) async fn ensure(
        &self,
        credential: &Credential,
        host: &str,
        entity: &str,
    ) -> Result<(), Failure> {
        let mut due = self.due.lock().await;
        let now = SystemTime::now();
        if due.get(entity).is_some_and(|at| *at > now) {
            return Ok(());
        }
        let audience = format!("sb://{host}/{entity}");
        let proof = prove(credential, &audience, now).await?;
        let properties = [
            ("operation", SimpleValue::String("put-token".into())),
            ("type", SimpleValue::String(proof.kind.into())),
            ("name", SimpleValue::String(audience)),
            ("expiration", SimpleValue::Timestamp(Timestamp::from(milliseconds(proof.expires_at)))),
        ];
        self.requests.call(properties, Value::String(proof.secret)).await?.ok()?;
        tracing::debug!(entity, "put a token");
        due.insert(entity.to_owned(), due_at(now, proof.expires_at));
        Ok(())
    }

    /// Has every claim made again.
    pub(crate) async fn forget(&self) {
        self.due.lock().await.clear();
    }
}

async fn prove(credential: &Credential, audience: &str, now: SystemTime) -> Result<Proof, Failure> {
    match credential {
        Credential::SharedKey { name, key } => {
            let expires_at = now + SIGNATURE_LIFE;
            let secret = sas::sign(name, key, audience, expires_at);
            Ok(Proof { kind: "servicebus.windows.net:sastoken", secret, expires_at })
        }
        Credential::Tokens(source) => {
            let token = source.token(SCOPE).await.map_err(|error| Failure::Token(error.to_string()))?;
            Ok(Proof { kind: "jwt", secret: token.secret, expires_at: token.expires_at })
        }
    }
}

fn due_at(now: SystemTime, expires_at: SystemTime) -> SystemTime {
    let life = expires_at.duration_since(now).unwrap_or_default();
    now + life.saturating_sub(EARLY).max(life / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_ten_minutes_early_or_at_half_of_a_short_life() {
        let now = SystemTime::now();
        let after = |life: u64| {
            let due = due_at(now, now + Duration::from_secs(life));
            due.duration_since(now).expect("later").as_secs()
        };
        assert_eq!([after(3600), after(1200), after(60), after(0)], [3000, 600, 30, 0]);
    }
}
