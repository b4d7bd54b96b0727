// SPDX-License-Identifier: Apache-2.0
//! The drivers of the table, by what they do wrong.

mod answers;
mod content;
mod external;
mod layers;
mod leaks;
mod mounts;
mod process;
mod staging;
mod streams;

use std::{
    os::fd::OwnedFd,
    sync::{Mutex, atomic::AtomicBool},
};

use plywood_plugin_sdk::{CreateRequest, Driver, LayerId, OpenRequest, Plugin, Result};

use crate::{
    FaultInfo,
    reference::ReferenceDriver,
    wrapper::{Fault, Faulty, Wrapper},
};

type Nothing = ();
type Ids = Mutex<Vec<LayerId>>;
type Requests = Mutex<Vec<CreateRequest>>;
type Lock = Mutex<()>;
type Flag = AtomicBool;
type Descriptors = Mutex<Vec<OwnedFd>>;
type Memory = Mutex<Vec<Vec<u8>>>;

macro_rules! define {
    ($($fault:ident $name:literal $state:ident $text:literal $cases:tt;)*) => {
        $(
            #[doc = $text]
            #[derive(Debug)]
            pub struct $fault {
                driver: ReferenceDriver,
                #[allow(dead_code, reason = "most faults remember nothing")]
                state: $state,
            }

            impl Wrapper for $fault {
                fn driver(&self) -> &ReferenceDriver {
                    &self.driver
                }
            }

            impl Plugin for $fault {
                const NAME: &'static str = $name;
                const VENDOR: &'static str = "Plywood conformance";
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");

                fn open(mut request: OpenRequest) -> Result<Box<dyn Driver>> {
                    Self::before_open(&mut request)?;
                    let mut driver = ReferenceDriver::open($name, request)?;
                    driver.name_directories(Self::DIRECTORY);
                    Ok(Box::new(Faulty(Self {
                        driver,
                        state: Default::default(),
                    })))
                }
            }
        )*

        /// Every driver with a fault.
        pub const FAULTS: &[FaultInfo] = &[$(FaultInfo {
            name: $name,
            text: $text,
            cases: &$cases,
        }),*];
    };
}

crate::for_each_fault!(define);
