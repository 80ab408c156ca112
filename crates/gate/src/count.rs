//! What the gate counts.

use metrics::{counter, describe_counter};

const ENTRIES: &str = "tangelo_gate_entries_total";
const SLOTS: &str = "tangelo_gate_slots_total";

/// The client was sent to a connector.
pub(crate) const PLACED: &str = "placed";
/// The client said no user id.
pub(crate) const NO_UID: &str = "no_uid";
/// No connector takes clients.
pub(crate) const NO_CONNECTOR: &str = "no_connector";

/// The client was told to come later.
pub(crate) const TOLD: &str = "told";
/// The client was told to ask later: all the near future is taken.
pub(crate) const PUT_OFF: &str = "put-off";
/// The answer was held.
pub(crate) const HELD: &str = "held";
/// The answer was not held, as too many were.
pub(crate) const SKIPPED: &str = "skipped";

/// Describes the counters, and shows them from the start with 0.
pub(crate) fn describe() {
    describe_counter!(ENTRIES, "Questions for a connector, by what came of them.");
    for outcome in [PLACED, NO_UID, NO_CONNECTOR] {
        counter!(ENTRIES, "outcome" => outcome).absolute(0);
    }
    describe_counter!(SLOTS, "Clients whose slot was not at once, by what was done.");
    for outcome in [TOLD, PUT_OFF, HELD, SKIPPED] {
        counter!(SLOTS, "outcome" => outcome).absolute(0);
    }
}

/// Counts one slot that was not at once.
pub(crate) fn slot(outcome: &'static str) {
    counter!(SLOTS, "outcome" => outcome).increment(1);
}

/// Counts one question for a connector.
pub(crate) fn entry(outcome: &'static str) {
    counter!(ENTRIES, "outcome" => outcome).increment(1);
}
