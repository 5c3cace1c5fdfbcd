//! Signatures of plugin files: Ed25519 over the 32 bytes of the file's SHA-256, detached in `NAME.wasm.sig`.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use geoworker_machine::{ErrorInfo, codes};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// Where the signature of a plugin file is.
#[must_use]
pub fn signature_path(plugin: &Path) -> PathBuf {
    let mut path = plugin.as_os_str().to_owned();
    path.push(".sig");
    PathBuf::from(path)
}

/// A private key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    text: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public_text()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// `WORKER_FAULT` where the system gives no random numbers.
    pub fn generate() -> Result<Self, ErrorInfo> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| {
            ErrorInfo::permanent(codes::WORKER_FAULT, "the system gives no random numbers for a key")
        })?;
        Self::from_text(&BASE64.encode(document.as_ref()))
    }

    /// Reads the text of a key file: PKCS #8 (version 2) in base64, on one line.
    ///
    /// # Errors
    /// `PLUGIN_SIGNATURE` where it is none.
    pub fn from_text(text: &str) -> Result<Self, ErrorInfo> {
        let text = text.trim().to_owned();
        let pair = BASE64.decode(&text).ok().and_then(|bytes| Ed25519KeyPair::from_pkcs8(&bytes).ok());
        let pair = pair.ok_or_else(|| {
            let message = "the file holds no private key; `geoworker plugin keygen` makes one";
            ErrorInfo::permanent(codes::PLUGIN_SIGNATURE, message)
        })?;
        Ok(Self { pair, text })
    }

    /// The text of a key file. A secret.
    #[must_use]
    pub fn secret_text(&self) -> &str {
        &self.text
    }

    /// The public key, as `GEOWORKER_PLUGIN_KEYS` has it: base64 of 32 bytes.
    #[must_use]
    pub fn public_text(&self) -> String {
        BASE64.encode(self.pair.public_key().as_ref())
    }

    /// Signs the content of a plugin file; answers the text of the signature file.
    #[must_use]
    pub fn sign(&self, content: &[u8]) -> String {
        BASE64.encode(self.pair.sign(&Sha256::digest(content)).as_ref()) + "\n"
    }
}

/// Keys whose signatures count.
#[derive(Debug, Clone)]
pub(crate) struct PublicKeys(Vec<Vec<u8>>);

impl PublicKeys {
    /// Reads a file of public keys, one a line; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// `PLUGIN_SIGNATURE` where it cannot be read, holds no key or a line that is none.
    pub(crate) fn read(path: &Path) -> Result<Self, ErrorInfo> {
        let invalid = |reason: String| {
            let message = format!("the key file {} is not usable: {reason}", path.display());
            ErrorInfo::permanent(codes::PLUGIN_SIGNATURE, message)
        };
        let text = std::fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
        let mut keys = Vec::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = BASE64.decode(line).ok().filter(|key| key.len() == ED25519_PUBLIC_KEY_LEN);
            keys.push(key.ok_or_else(|| invalid(format!("line {} is no public key", number + 1)))?);
        }
        if keys.is_empty() { Err(invalid("it holds no key".into())) } else { Ok(Self(keys)) }
    }

    /// Checks the signature beside a plugin file.
    ///
    /// # Errors
    /// `PLUGIN_SIGNATURE` where there is none, or it is none of these keys'.
    pub(crate) fn check(&self, plugin: &Path, digest: &[u8]) -> Result<(), ErrorInfo> {
        let refused = |reason: String| ErrorInfo::permanent(codes::PLUGIN_SIGNATURE, reason);
        let text = std::fs::read_to_string(signature_path(plugin))
            .map_err(|error| refused(format!("the file's signature cannot be read: {error}")))?;
        let signature =
            BASE64.decode(text.trim()).map_err(|_| refused("the file's signature is not base64".into()))?;
        let signed =
            self.0.iter().any(|key| UnparsedPublicKey::new(&ED25519, key).verify(digest, &signature).is_ok());
        if signed { Ok(()) } else { Err(refused("no known key has signed this content".into())) }
    }
}
