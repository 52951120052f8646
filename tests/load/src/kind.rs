//! The servers that can be compared.

use crate::Result;

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Digi,
    Epoll,
    Bare,
    Ws,
    Socketify,
    Picows,
    Webrockets,
    AsgiDigi,
    AsgiOrm,
    AsgiBare,
    Channels,
    Channels2,
    Classic,
}

/// What runs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Host {
    /// This program.
    Own,
    /// `python/peers.py`.
    Python,
    /// `node/ws_peer.js`.
    Node,
}

impl Kind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Digi,
        Self::Epoll,
        Self::Bare,
        Self::Ws,
        Self::Socketify,
        Self::Picows,
        Self::Webrockets,
        Self::AsgiDigi,
        Self::AsgiOrm,
        Self::AsgiBare,
        Self::Channels,
        Self::Channels2,
        Self::Classic,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Digi => "digi",
            Self::Epoll => "epoll",
            Self::Bare => "bare",
            Self::Ws => "ws",
            Self::Socketify => "socketify",
            Self::Picows => "picows",
            Self::Webrockets => "webrockets",
            Self::AsgiDigi => "asgi-digi",
            Self::AsgiOrm => "asgi-orm",
            Self::AsgiBare => "asgi-bare",
            Self::Channels => "channels",
            Self::Channels2 => "channels-2",
            Self::Classic => "classic",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| format!("{name:?} is no peer: there are {}", names()).into())
    }

    pub(crate) fn host(self) -> Host {
        match self {
            Self::Digi | Self::Epoll | Self::Bare => Host::Own,
            Self::Ws => Host::Node,
            _ => Host::Python,
        }
    }

    /// Whether messages are in a database before anybody gets them.
    pub(crate) fn stores(self) -> bool {
        matches!(self, Self::Digi | Self::AsgiDigi | Self::AsgiOrm | Self::Channels | Self::Channels2 | Self::Classic)
    }

    /// Whether it is Digi, however hosted.
    pub(crate) fn is_digi(self) -> bool {
        matches!(self, Self::Digi | Self::AsgiDigi | Self::AsgiOrm)
    }

    /// Whether a message that goes astray fails the run. The others' faults are counted and shown.
    pub(crate) fn has_to_be_right(self) -> bool {
        self.is_digi() || matches!(self, Self::Epoll | Self::Bare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_known_by_their_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()).unwrap(), kind);
        }
        assert!(Kind::from_name("daphne").unwrap_err().to_string().contains("asgi-digi, asgi-orm, asgi-bare"));
    }
}
