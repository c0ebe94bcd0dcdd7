//! The Docker API proxy before a daemon that is the test itself: it reads what the proxy sends, byte by byte, and
//! answers what it likes.

mod kit;
mod leaving;
mod listening;
mod malformed;
mod passing;
mod streams;
mod uploads;
