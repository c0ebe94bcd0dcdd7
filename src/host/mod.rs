//! This host as the programs find it: files, locks, processes, privileges, host names.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`addresses`] | lists the addresses of its interfaces |
//! | [`files`] | makes and replaces files, links and folders in one step |
//! | [`kernel`] | tells what the kernel can do |
//! | [`lock`] | lock files that programs of several releases share |
//! | [`processes`] | reads `/proc` |
//! | [`privileges`] | gives up what an executor does not need |
//! | [`resolve`] | resolves host names without the C library |
//! | [`trust`] | checks that only root can change the files that decide over a host |

pub mod addresses;
pub mod files;
pub mod kernel;
pub mod lock;
pub mod privileges;
pub mod processes;
pub mod resolve;
pub mod trust;
