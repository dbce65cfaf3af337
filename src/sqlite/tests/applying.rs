//! Writing what others wrote.
