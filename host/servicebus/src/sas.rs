//! Shared access signatures.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

/// What the service leaves unescaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Signs access to `audience`, e.g. `sb://host/queue`, until `expires_at`.
pub(crate) fn sign(key_name: &str, key: &str, audience: &str, expires_at: SystemTime) -> String {
    let end = expires_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let resource = escape(audience);
    let signature = STANDARD.encode(hmac(key.as_bytes(), format!("{resource}\n{end}").as_bytes()));
    let (signature, key_name) = (escape(&signature), escape(key_name));
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={end}&skn={key_name}")
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length, so that the error does not exist.
    let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    hmac.update(text);
    hmac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_hmac_is_that_of_rfc_4231() {
        let hex: String =
            hmac(b"Jefe", b"what do ya want for nothing?").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_signature_is_as_the_service_computes_it() {
        let end = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let signed = sign("Root Key", "secret", "sb://example.servicebus.windows.net/tasks", end);
        // Computed with Python: hmac, hashlib, base64 and urllib.parse.quote(.., safe="").
        assert_eq!(
            signed,
            "SharedAccessSignature sr=sb%3A%2F%2Fexample.servicebus.windows.net%2Ftasks&sig=7fD56px%2Fpw4Nz0nBK6V2VUNPridXY87%2BYgJn3cmJMI8%3D&se=1700000000&skn=Root%20Key"
        );
    }
}
