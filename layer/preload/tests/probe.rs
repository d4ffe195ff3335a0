#[test] fn x(){ panic!("{:?}", std::env::current_exe()); }
