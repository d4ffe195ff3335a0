//! Whether a peer has fallen silent: a pure state over counts of datagrams, looked at now and then.
//!
//! Both ends of a connection that lives send something every few seconds (QUIC's keep-alive), and answer it. A look that finds
//! datagrams sent since the last one received, and at the next look still none received, has met silence.

/// What the last looks saw.
#[derive(Debug, Default)]
pub(super) struct Silence {
    received: u64,
    /// How many were sent when one was last seen to be received.
    sent: u64,
    /// Something had been sent in vain at the last look.
    in_vain: bool,
}

impl Silence {
    /// Looks at how many datagrams were received and sent; `false` where the peer is silent.
    pub(super) fn look(&mut self, received: u64, sent: u64) -> bool {
        if received != self.received {
            *self = Self { received, sent, in_vain: false };
            return true;
        }
        let was_in_vain = std::mem::replace(&mut self.in_vain, sent > self.sent);
        !was_in_vain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_sent_and_not_answered_by_the_next_look_is_silence() {
        let mut silence = Silence::default();
        assert!(silence.look(5, 9), "answers");
        assert!(silence.look(5, 9) && silence.look(5, 9), "nobody said anything");
        assert!(silence.look(5, 10), "an answer may be on its way");
        assert!(silence.look(6, 10), "here it is");
        assert!(silence.look(6, 11));
        assert!(!silence.look(6, 12), "there is none");
    }
}
