//! What grpc-build generated.

#![allow(dead_code, unnameable_types, reason = "each test binary uses its part")]
#![allow(missing_docs, reason = "the files that it was generated from say what they say")]
#![allow(
    clippy::all,
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]

pub mod grpc {
    pub mod testing {
        include!("../generated/grpc.testing.rs");
    }
}

pub mod odd {
    pub mod v1 {
        include!("../generated/odd.v1.rs");
    }
}

pub mod other {
    include!("../generated/other.rs");
}

pub mod portolan {
    pub mod library {
        pub mod v1 {
            include!("../generated/portolan.library.v1.rs");
        }
    }
}

pub mod google {
    pub mod api {
        include!("../generated/google.api.rs");
    }
    pub mod rpc {
        include!("../generated/google.rpc.rs");
    }
}
