//! Parses the segments with quantisation tables and Huffman tables.

use super::{BAD_HUFFMAN_TABLE_NUMBER, QuantizationSteps, TableSlots};
use crate::{Error, huffman::StoredTable, zigzag::ZIGZAG};

/// Parses a DQT segment, which contains any number of tables, into `slots`.
pub(super) fn parse_quantization_tables(
    mut segment: &[u8],
    slots: &mut [Option<QuantizationSteps>; 4],
) -> Result<(), Error> {
    const BAD_LENGTH: Error = Error::Corrupt("a quantisation table has a wrong length");
    while let Some((&precision_and_number, rest)) = segment.split_first() {
        let slot = slots.get_mut(usize::from(precision_and_number & 15));
        let slot = slot.ok_or(Error::Corrupt("a quantisation table number is out of range"))?;
        let mut steps = [0; 64];
        match precision_and_number >> 4 {
            0 => {
                let (stored, rest) = rest.split_first_chunk::<64>().ok_or(BAD_LENGTH)?;
                for (&index, &step) in ZIGZAG.iter().zip(stored) {
                    steps[usize::from(index)] = i16::from(step);
                }
                segment = rest;
            }
            1 => {
                let (stored, rest) = rest.split_first_chunk::<128>().ok_or(BAD_LENGTH)?;
                for (&index, &step) in ZIGZAG.iter().zip(stored.as_chunks::<2>().0) {
                    let step = i16::try_from(u16::from_be_bytes(step));
                    let step = step.map_err(|_| Error::Unsupported("a quantiser step above 32767"))?;
                    steps[usize::from(index)] = step;
                }
                segment = rest;
            }
            _ => return Err(Error::Corrupt("the precision of a quantisation table is invalid")),
        }
        *slot = Some(steps);
    }
    Ok(())
}

/// Parses a DHT segment, which contains any number of tables.
pub(super) fn parse_huffman_tables<'a>(
    mut segment: &'a [u8],
    dc_tables: &mut TableSlots<'a>,
    ac_tables: &mut TableSlots<'a>,
) -> Result<(), Error> {
    while let Some((&class_and_number, rest)) = segment.split_first() {
        let tables = match class_and_number >> 4 {
            0 => &mut *dc_tables,
            1 => &mut *ac_tables,
            _ => return Err(Error::Corrupt("the class of a Huffman table is invalid")),
        };
        let slot = tables.get_mut(usize::from(class_and_number & 15));
        let slot = slot.ok_or(BAD_HUFFMAN_TABLE_NUMBER)?;
        let (table, rest) = StoredTable::split_from(rest)?;
        *slot = Some(table);
        segment = rest;
    }
    Ok(())
}

/// Parses a DRI segment, which contains the restart interval in MCUs.
pub(super) fn parse_restart_interval(segment: &[u8]) -> Result<u32, Error> {
    let &[high, low] = segment else { return Err(Error::Corrupt("a restart interval has a wrong length")) };
    Ok(u32::from(u16::from_be_bytes([high, low])))
}
