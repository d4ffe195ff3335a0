//! Metrics with labels, one for each value of a closed set. All are there from the start, so a counter that was never
//! counted shows 0 rather than nothing, and counting is an addition at a known place: no lock, no hash, no text.
//!
//! What is no closed set (a pod's name, a route, a user) can't be a label at all: it has no [`Label`].

use std::{fmt, marker::PhantomData, sync::Arc};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric},
};

/// A value of a closed set, as labels of a metric.
pub trait Label: Copy + fmt::Debug + Send + Sync + 'static {
    /// How many values there are.
    const COUNT: usize;

    /// All values, in the order of their places.
    fn all() -> Vec<Self>;

    /// Its place, below [`Self::COUNT`].
    fn place(self) -> usize;

    /// Names and values of its labels.
    fn pairs(self) -> Vec<(&'static str, &'static str)>;
}

/// Two labels at once.
impl<A: Label, B: Label> Label for (A, B) {
    const COUNT: usize = A::COUNT * B::COUNT;

    fn all() -> Vec<Self> {
        A::all().into_iter().flat_map(|one| B::all().into_iter().map(move |other| (one, other))).collect()
    }

    fn place(self) -> usize {
        self.0.place() * B::COUNT + self.1.place()
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        [self.0.pairs(), self.1.pairs()].concat()
    }
}

/// Declares closed sets: `enum NAME as "label" { Variant = "value", … }`.
#[macro_export]
macro_rules! labels {
    ($(
        $(#[$doc:meta])*
        $visibility:vis enum $Set:ident as $name:literal {
            $($(#[$value_doc:meta])* $Value:ident = $word:literal),* $(,)?
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $Set { $($(#[$value_doc])* $Value),* }

        impl $crate::Label for $Set {
            const COUNT: usize = [$($word),*].len();

            fn all() -> Vec<Self> {
                vec![$(Self::$Value),*]
            }

            fn place(self) -> usize {
                self as usize
            }

            fn pairs(self) -> Vec<(&'static str, &'static str)> {
                vec![($name, match self { $(Self::$Value => $word),* })]
            }
        }
    )*};
}

/// A metric for each value of a closed set. Clones share them.
pub struct Closed<L, M> {
    metrics: Arc<[M]>,
    set: PhantomData<fn(L)>,
}

impl<L: Label, M> Closed<L, M> {
    /// Each made by `make`.
    pub fn new(make: impl Fn() -> M) -> Self {
        Self { metrics: (0..L::COUNT).map(|_| make()).collect(), set: PhantomData }
    }

    /// The one of a value.
    #[must_use]
    pub fn of(&self, label: L) -> &M {
        &self.metrics[label.place()]
    }
}

impl<L: Label, M: Default> Default for Closed<L, M> {
    fn default() -> Self {
        Self::new(M::default)
    }
}

impl<L, M> Clone for Closed<L, M> {
    fn clone(&self) -> Self {
        Self { metrics: Arc::clone(&self.metrics), set: PhantomData }
    }
}

impl<L, M: fmt::Debug> fmt::Debug for Closed<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.metrics.iter()).finish()
    }
}

impl<L: Label, M: EncodeMetric + TypedMetric> EncodeMetric for Closed<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        L::all().into_iter().try_for_each(|label| {
            let pairs = label.pairs();
            self.of(label).encode(encoder.encode_family(&pairs)?)
        })
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::labels! {
        enum Colour as "colour" { Red = "red", Green = "green", Blue = "blue" }
        enum Size as "size" { Small = "small", Large = "large" }
    }

    #[test]
    fn every_value_has_a_place_of_its_own() {
        let all = <(Colour, Size)>::all();
        assert_eq!(all.len(), <(Colour, Size)>::COUNT);
        for (place, label) in all.into_iter().enumerate() {
            assert_eq!(label.place(), place);
        }
        assert_eq!((Colour::Blue, Size::Small).pairs(), [("colour", "blue"), ("size", "small")]);
    }
}
