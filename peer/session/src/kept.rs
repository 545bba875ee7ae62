//! A session that is kept over a restart: what it takes to go on with it, as bytes for a file. Whoever has these bytes and the
//! client's key is the user, until the account's password is changed.

use minicbor::{Decode, Encode};
use shoal_common::UserName;
use shoal_common::credentials::{Account, SECRET_BYTES, Secrets};
use shoal_common::tracker_api::{self, Answer, Call, RefusalKind, Reply};
use shoal_wipe::without_traces;
use zeroize::Zeroizing;

use super::connection::TrackerConnection;
use super::login::{Attempt, LoginError, Proof};
use super::{CallError, MAX_CARRIES, Session, SessionState, Who, lock};

/// A session that was kept.
pub struct Kept {
    /// Who was logged in.
    pub name: UserName,
    candidate: u8,
    token: Vec<u8>,
    secrets: Secrets,
    account: Account,
}

/// As it is written.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Written {
    #[n(0)]
    name: UserName,
    #[n(1)]
    candidate: u8,
    #[cbor(n(2), with = "minicbor::bytes")]
    token: Vec<u8>,
    #[n(3)]
    account: Account,
    #[cbor(n(4), with = "minicbor::bytes")]
    secrets: [u8; SECRET_BYTES],
}

impl Kept {
    /// Reads what [`Session::keep`] gave; nothing if it is something else.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        without_traces(|| {
            let Written { name, candidate, token, account, secrets } = minicbor::decode(bytes).ok()?;
            Some(Self { name, candidate, token, secrets: Secrets::from_bytes(&secrets), account })
        })
    }

    fn bytes(&self) -> Zeroizing<Vec<u8>> {
        without_traces(|| {
            let written = Written {
                name: self.name.clone(),
                candidate: self.candidate,
                token: self.token.clone(),
                account: self.account.clone(),
                secrets: *self.secrets.as_bytes(),
            };
            // Writing into memory cannot fail.
            Zeroizing::new(minicbor::to_vec(&written).unwrap_or_default())
        })
    }
}

impl Session {
    /// The present session as bytes to be kept; nothing when no user is logged in.
    #[must_use]
    pub fn keep(&self) -> Option<Zeroizing<Vec<u8>>> {
        let name = self.who()?.name;
        let last = lock(&self.0.candidate).clone();
        let candidate = last.filter(|(last, _)| *last == name).map_or(0, |(_, candidate)| candidate);
        let login = lock(&self.0.login);
        let login = login.as_ref()?;
        let kept = Kept {
            name,
            candidate,
            token: login.token.clone(),
            secrets: login.secrets.clone(),
            account: login.account.clone(),
        };
        Some(kept.bytes())
    }

    /// Goes on with a session that was kept: by its token, else by its keys. Dropping the future leaves open whether it did.
    ///
    /// # Errors
    /// As [`Session::login`]: a refusal as [`RefusalKind::SignedOut`] says that the user ended it elsewhere, one as
    /// [`RefusalKind::WrongPassword`] that the password is another one now, or that the tracker does not know the account yet.
    pub async fn resume(&self, kept: &Kept) -> Result<Who, LoginError> {
        for _ in 0..MAX_CARRIES {
            let connection = self.connection().await?;
            match self.0.take_up(&connection, kept).await {
                Ok((session, secrets)) => {
                    let who = self.0.adopt(&session, Some(secrets));
                    self.0.began.notify_one();
                    return Ok(who);
                }
                Err(Attempt::Lost) => {}
                Err(Attempt::Failed(error)) => return Err(error),
            }
        }
        Err(self.no_tracker().into())
    }
}

impl SessionState {
    async fn take_up(
        &self,
        connection: &TrackerConnection,
        kept: &Kept,
    ) -> Result<(Box<tracker_api::Session>, Secrets), Attempt> {
        match connection.call(Call::Resume { token: kept.token.clone() }).await? {
            Reply::Done(Answer::LoggedIn(session)) => {
                *lock(&self.candidate) = Some((session.name.clone(), kept.candidate));
                return Ok((session, kept.secrets.clone()));
            }
            Reply::Refused(refusal) if refusal.kind == RefusalKind::NotLoggedIn => {}
            Reply::Refused(refusal) => return Err(CallError::from(refusal).into()),
            Reply::Done(_) => return Err(CallError::Unexpected.into()),
        }
        // Too old, or a tracker that catches up.
        *lock(&self.candidate) = Some((kept.name.clone(), kept.candidate));
        self.sign_in(connection, &kept.name, &Proof::Secrets(Box::new(kept.secrets.clone()))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_session_reads_back_and_nonsense_does_not() {
        let (secrets, _, account) = Secrets::create("secret").unwrap();
        let name = UserName::create("ann").unwrap();
        let kept = Kept { name, candidate: 2, token: vec![7; 300], secrets: secrets.clone(), account };
        let bytes = kept.bytes();
        let read = Kept::read(&bytes).unwrap();
        assert_eq!((read.name, read.candidate, read.token), (kept.name, 2, vec![7; 300]));
        assert_eq!(read.secrets.login_key(), secrets.login_key());
        assert!(read.secrets.open(&read.account).is_ok());
        for cut in 0..bytes.len() {
            assert!(Kept::read(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        assert!(Kept::read(b"nonsense").is_none());
    }
}
