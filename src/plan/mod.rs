//! Who lives where: a pure function from (index, machine, wishes) to a placement. No clock, no IO, no FFI.
