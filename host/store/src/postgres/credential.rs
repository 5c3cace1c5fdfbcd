//! Tokens in place of passwords: renewed ahead of their end, and at once where the server refuses one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geoworker_identity::{IdentityError, TokenSource};
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::sync::Notify;

use super::settings::{PostgresCredential, TOKEN_SCOPE};

/// A token is renewed this long before its end; in the middle of its life where that is shorter.
const AHEAD: Duration = Duration::from_secs(600);
/// Between two tries where there is no token to be had, or the server refuses it.
const AGAIN: Duration = Duration::from_secs(5);

/// Options with the credential as it is now, and when a token is due to be renewed.
pub(super) async fn with_credential(
    options: PgConnectOptions,
    credential: &PostgresCredential,
) -> Result<(PgConnectOptions, Option<Duration>), IdentityError> {
    match credential {
        PostgresCredential::Password(password) => Ok((options.password(password), None)),
        PostgresCredential::Token(source) => {
            let token = source.token(TOKEN_SCOPE).await?;
            let left = token.expires_at.duration_since(SystemTime::now()).unwrap_or_default();
            Ok((options.password(&token.secret), Some(left.saturating_sub(AHEAD).max(left / 2).max(AGAIN))))
        }
    }
}

/// Gives `pools` new tokens until they are closed. `denied` says that the server refused one.
pub(super) fn keep(source: Arc<dyn TokenSource>, pools: Vec<PgPool>, first: Duration, denied: Arc<Notify>) {
    let credential = PostgresCredential::Token(source);
    let Some(mut closed) = pools.first().map(PgPool::close_event) else { return };
    tokio::spawn(async move {
        // It ends with the pools, whatever it is about.
        let _ = closed.do_until(keep_renewing(&credential, &pools, first, &denied)).await;
    });
}

async fn keep_renewing(credential: &PostgresCredential, pools: &[PgPool], first: Duration, denied: &Notify) {
    let mut due = first;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(due) => {}
            () = denied.notified() => {}
        }
        due = match renew(credential, pools).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "no new token for the database; the old one serves while it holds");
                AGAIN
            }
        };
    }
}

async fn renew(credential: &PostgresCredential, pools: &[PgPool]) -> Result<Duration, IdentityError> {
    let mut next = None;
    for pool in pools {
        let (options, due) = with_credential((*pool.connect_options()).clone(), credential).await?;
        pool.set_connect_options(options);
        next = due;
    }
    Ok(next.unwrap_or(AGAIN))
}
