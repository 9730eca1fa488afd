//! A peer without HTTP/3: it says what the script says, down to the byte.
