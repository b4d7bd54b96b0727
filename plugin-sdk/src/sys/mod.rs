//! System calls that no library wraps.
