//! Every value survives bit for bit.
