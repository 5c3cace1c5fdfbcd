//! `$cbs`: tokens put by clients, and when they run out. Signatures are not checked.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_amqp::Value;

use crate::address::path;
use crate::conditions::Condition;
use crate::queue::Millis;
use crate::request::{Answer, Request};

/// When the tokens of a connection run out, by the path they are good for.
#[derive(Debug)]
pub(crate) struct Tokens {
    expiries: HashMap<String, Millis>,
    trusted: bool,
}

impl Tokens {
    /// No tokens yet. A trusted connection is good for everything without one.
    pub(crate) fn new(trusted: bool) -> Self {
        Self { expiries: HashMap::new(), trusted }
    }

    /// Takes a token.
    pub(crate) fn put(&mut self, now: Millis, request: &Request) -> Answer {
        if request.operation != "put-token" {
            let description = format!("no operation {:?}", request.operation);
            return Answer::refused(Condition::NotImplemented, description);
        }
        let Some(audience) = request.property("name") else {
            return Answer::refused(Condition::BadRequest, "put-token needs the property \"name\"");
        };
        let token = match &request.body {
            Value::String(token) => token.as_str(),
            _ => "",
        };
        // Clients write the property "type" as they like; the token itself tells.
        match sas_expiry(token).or_else(|| jwt_expiry(token)) {
            None => Answer::refused(Condition::Unauthorized, "InvalidToken: neither a SAS nor a JWT"),
            Some(expiry) if expiry <= now => {
                Answer::refused(Condition::Unauthorized, "ExpiredToken: the token is out of date")
            }
            Some(expiry) => {
                self.expiries.insert(path(audience), expiry);
                Answer::accepted()
            }
        }
    }

    /// Whether a token covers this queue now: one for the queue, for a node below it, or for the whole namespace.
    pub(crate) fn cover(&self, now: Millis, queue: &str) -> bool {
        let covers = |path: &str| {
            path.is_empty()
                || path.strip_prefix(queue).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.trusted || self.expiries.iter().any(|(path, expiry)| *expiry > now && covers(path))
    }
}

/// The `se` of a shared access signature, in seconds.
fn sas_expiry(token: &str) -> Option<Millis> {
    let fields = token.strip_prefix("SharedAccessSignature ")?;
    let seconds = fields.split('&').find_map(|field| field.strip_prefix("se="))?;
    seconds.parse::<Millis>().ok()?.checked_mul(1000)
}

/// The `exp` of a JSON web token, in seconds.
fn jwt_expiry(token: &str) -> Option<Millis> {
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims.get("exp")?.as_i64()?.checked_mul(1000)
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Body};
    use fe2o3_amqp_types::primitives::SimpleValue;

    use super::*;
    use crate::message::Content;

    fn put(tokens: &mut Tokens, now: Millis, name: &str, token: &str) -> i32 {
        let mut properties = ApplicationProperties::default();
        for (key, value) in [("operation", "put-token"), ("name", name)] {
            properties.0.insert(key.to_owned(), SimpleValue::String(value.to_owned()));
        }
        let content = Content {
            header: None,
            delivery_annotations: None,
            message_annotations: None,
            properties: None,
            application_properties: Some(properties),
            body: Body::Value(AmqpValue(Value::String(token.to_owned()))),
            footer: None,
        };
        tokens.put(now, &Request::read(content)).status
    }

    #[test]
    fn a_sas_covers_its_queue_until_it_runs_out() {
        let mut tokens = Tokens::new(false);
        let sas = "SharedAccessSignature sr=x&sig=y&se=100&skn=z";
        assert_eq!(put(&mut tokens, 0, "sb://host/tasks", sas), 202);
        assert!(tokens.cover(99_999, "tasks"));
        assert!(!tokens.cover(100_000, "tasks"), "it ran out");
        assert!(!tokens.cover(0, "task"), "another queue");
        assert_eq!(put(&mut tokens, 100_000, "sb://host/tasks", sas), 401);
    }

    #[test]
    fn a_jwt_for_the_namespace_covers_every_queue() {
        let mut tokens = Tokens::new(false);
        let jwt = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(r#"{"exp":100}"#));
        assert_eq!(put(&mut tokens, 0, "sb://host/", &jwt), 202);
        assert!(tokens.cover(0, "tasks"));
        assert_eq!(put(&mut tokens, 0, "sb://host/", "nonsense"), 401);
    }
}
