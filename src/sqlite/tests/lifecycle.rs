//! Opening, enrolling, fencing, ejecting.
