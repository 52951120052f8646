//! Whether every member of a room gets every message, once, and in the same order as the others.

use std::collections::BTreeSet;
use std::ops::AddAssign;

/// What went wrong. All zero: nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Faults {
    /// Never came.
    pub(crate) lost: u64,
    /// Came again.
    pub(crate) doubled: u64,
    /// Came after a later message of the same sender, or in another order than to another member.
    pub(crate) reordered: u64,
    /// Frames that should not have come at all: errors, other rooms' messages.
    pub(crate) strange: u64,
}

impl Faults {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.strange += other.strange;
    }
}

/// Which message of which sender of a room: as its body says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag {
    pub(crate) sender: usize,
    /// 0, 1, 2 … per sender.
    pub(crate) number: u64,
}

/// The messages of a room in the order in which the first member to get each got them.
#[derive(Default)]
pub(crate) struct Order(Vec<Tag>);

impl Order {
    /// Everybody has everything: forgets it.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// What one member has got.
pub(crate) struct Seen {
    senders: Vec<SeenOf>,
    /// How many messages since the order was cleared.
    position: usize,
    pub(crate) faults: Faults,
}

#[derive(Default, Clone)]
struct SeenOf {
    next: u64,
    missing: BTreeSet<u64>,
}

impl Seen {
    pub(crate) fn new(senders: usize) -> Self {
        Self { senders: vec![SeenOf::default(); senders], position: 0, faults: Faults::default() }
    }

    /// A message came.
    pub(crate) fn note(&mut self, tag: Tag, order: &mut Order) {
        let Some(of) = self.senders.get_mut(tag.sender) else {
            self.faults.strange += 1;
            return;
        };
        if tag.number == of.next {
            of.next += 1;
        } else if tag.number > of.next {
            of.missing.extend(of.next..tag.number);
            of.next = tag.number + 1;
        } else if of.missing.remove(&tag.number) {
            self.faults.reordered += 1;
        } else {
            self.faults.doubled += 1;
        }
        match order.0.get(self.position) {
            None => order.0.push(tag),
            // After the first fault the places say nothing any more.
            Some(first) if *first != tag && self.faults.is_none() => self.faults.reordered += 1,
            Some(_) => {}
        }
        self.position += 1;
    }

    /// Whether everything came that was sent: so many of each sender.
    pub(crate) fn has_all(&self, sent: &[u64]) -> bool {
        self.senders.iter().zip(sent).all(|(of, sent)| of.next >= *sent && of.missing.is_empty())
    }

    /// What went wrong, when nothing more is to come. Begins anew after it.
    pub(crate) fn settle(&mut self, sent: &[u64]) -> Faults {
        for (of, sent) in self.senders.iter_mut().zip(sent) {
            self.faults.lost += of.missing.len() as u64 + sent.saturating_sub(of.next);
            of.missing.clear();
            of.next = *sent;
        }
        self.position = 0;
        std::mem::take(&mut self.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(numbers: &[u64], sent: u64) -> Faults {
        let mut seen = Seen::new(1);
        let mut order = Order::default();
        for number in numbers {
            seen.note(Tag { sender: 0, number: *number }, &mut order);
        }
        assert_eq!(seen.has_all(&[sent]), (0..sent).all(|number| numbers.contains(&number)));
        seen.settle(&[sent])
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        let none = Faults::default();
        assert_eq!(faults(&[0, 1, 2], 3), none);
        assert_eq!(faults(&[0, 1], 3), Faults { lost: 1, ..none });
        assert_eq!(faults(&[0, 2], 3), Faults { lost: 1, ..none });
        assert_eq!(faults(&[0, 1, 1, 2], 3), Faults { doubled: 1, ..none });
        assert_eq!(faults(&[0, 2, 1], 3), Faults { reordered: 1, ..none });
        assert_eq!(faults(&[], 3), Faults { lost: 3, ..none });
    }

    #[test]
    fn members_have_to_agree_on_the_order() {
        let mut order = Order::default();
        let (mut first, mut second) = (Seen::new(2), Seen::new(2));
        let tags = [Tag { sender: 0, number: 0 }, Tag { sender: 1, number: 0 }];
        for (a, b) in tags.iter().zip(tags.iter().rev()) {
            first.note(*a, &mut order);
            second.note(*b, &mut order);
        }
        assert!(first.settle(&[1, 1]).is_none());
        assert_eq!(second.settle(&[1, 1]).reordered, 1);
    }

    #[test]
    fn what_nobody_sends_is_strange() {
        let mut seen = Seen::new(1);
        seen.note(Tag { sender: 1, number: 0 }, &mut Order::default());
        assert_eq!(seen.settle(&[0]), Faults { strange: 1, ..Faults::default() });
    }
}
