//! NVIDIA's driver, asked at run time whatever this program was built with: which cards there are. Nothing is linked; where the library
//! of the driver is missing, that is the answer.
#![allow(unsafe_code)]

use cudarc::driver::result::{DriverError, device, init};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

use crate::units::Bytes;

/// What the driver says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// There is none.
    Absent,
    /// It is there, and does not work: why, in its own words.
    Failed(String),
    /// It works.
    Works {
        /// The newest version of CUDA that it knows: major and minor.
        cuda: (i32, i32),
        /// The cards that it lets this process use.
        cards: Vec<Card>,
    },
}

/// A graphics card.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// All of its memory.
    pub memory: Bytes,
    /// What it can compute, as NVIDIA counts it: major and minor.
    pub capability: (i32, i32),
    /// Where it is on the bus, as Linux writes it: `0000:65:00.0`.
    pub pci_address: String,
}

impl Driver {
    /// Asks the driver. Where there is one, that may take a second.
    pub fn ask() -> Driver {
        // SAFETY: loads the driver's own library, if there is one, which is made to be loaded by any program.
        if !unsafe { sys::is_culib_present() } {
            return Driver::Absent;
        }
        match ask() {
            Ok((cuda, cards)) => Driver::Works { cuda, cards },
            Err(error) => Driver::Failed(in_words(error)),
        }
    }

    /// The cards that can be used.
    pub fn cards(&self) -> &[Card] {
        match self {
            Driver::Works { cards, .. } => cards,
            _ => &[],
        }
    }
}

/// The version of CUDA, and the cards.
fn ask() -> Result<((i32, i32), Vec<Card>), DriverError> {
    init()?;
    let mut version = 0;
    // SAFETY: the library is there and was initialised; it writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut version).result()? };
    let cards = (0..device::get_count()?).map(card).collect::<Result<_, _>>()?;
    Ok(((version / 1000, version % 1000 / 10), cards))
}

fn card(number: i32) -> Result<Card, DriverError> {
    let card = device::get(number)?;
    // SAFETY: a device that the driver has just named.
    let of = |attribute| unsafe { device::get_attribute(card, attribute) };
    // SAFETY: as above.
    let memory = unsafe { device::total_mem(card)? };
    let [domain, bus, slot] = [
        of(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
        of(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
        of(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?,
    ];
    Ok(Card {
        name: device::get_name(card)?,
        memory: Bytes::from(memory),
        capability: (
            of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        pci_address: format!("{domain:04x}:{bus:02x}:{slot:02x}.0"),
    })
}

/// What the driver calls an error.
fn in_words(error: DriverError) -> String {
    let text = error.error_string().or_else(|_| error.error_name());
    text.map_or_else(|_| format!("error {:?}", error.0), |text| text.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_or_without_a_driver_gets_an_answer() {
        match Driver::ask() {
            Driver::Absent => {}
            Driver::Failed(why) => assert!(!why.is_empty()),
            Driver::Works { cuda, cards } => {
                assert!(cuda.0 >= 9, "{cuda:?}");
                assert!(cards.iter().all(|c| !c.name.is_empty() && c.memory > Bytes::ZERO));
            }
        }
    }
}
