#![cfg_attr(fuzzing, no_main)]

asynchat_fuzz::target!(asynchat_fuzz::producer_sink);
