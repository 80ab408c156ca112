//! What the gate counts.

use metrics::{counter, describe_counter};

const ENTRIES: &str = "tangelo_gate_entries_total";

/// The client was sent to a connector.
pub(crate) const PLACED: &str = "placed";
/// The client said no user id.
pub(crate) const NO_UID: &str = "no_uid";
/// No connector takes clients.
pub(crate) const NO_CONNECTOR: &str = "no_connector";

/// Describes the counters, and shows them from the start with 0.
pub(crate) fn describe() {
    describe_counter!(ENTRIES, "Questions for a connector, by what came of them.");
    for outcome in [PLACED, NO_UID, NO_CONNECTOR] {
        counter!(ENTRIES, "outcome" => outcome).absolute(0);
    }
}

/// Counts one question for a connector.
pub(crate) fn entry(outcome: &'static str) {
    counter!(ENTRIES, "outcome" => outcome).increment(1);
}
