//! DNS against BIND and Unbound, directly and through proxies.

mod faults;
mod peers;
mod servers;
