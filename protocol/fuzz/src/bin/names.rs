#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| penholder_protocol_fuzz::names(bytes));
