use portolan_wire::laws;

use super::*;

#[test]
fn the_examples_of_rfc_9651_are_read_and_written() {
    for (field, written) in [
        ("sugar, tea, rum", "sugar, tea, rum"),
        (r#"("foo" "bar"), ("baz"), ("bat" "one"), ()"#, r#"("foo" "bar"), ("baz"), ("bat" "one"), ()"#),
        (r#"("foo"; a=1;b=2);lvl=5, ("bar" "baz");lvl=1"#, r#"("foo";a=1;b=2);lvl=5, ("bar" "baz");lvl=1"#),
        ("abc;a=1;b=2; cde_456, (ghi;jk=4 l);q=\"9\";r=w", "abc;a=1;b=2;cde_456, (ghi;jk=4 l);q=\"9\";r=w"),
        ("  2; foourl=\"https://foo.example.com/\" ", "2;foourl=\"https://foo.example.com/\""),
        ("4.5, -0.0, 1.20, -12.345, 007", "4.5, 0.0, 1.2, -12.345, 7"),
        (":cHJldGVuZCB0aGlz:, ::, :YQ:", ":cHJldGVuZCB0aGlz:, ::, :YQ==:"),
        ("?1, ?0, @1659578233, foo123/456", "?1, ?0, @1659578233, foo123/456"),
        (r#"%"This is intended for display to %c3%bcsers.""#, r#"%"This is intended for display to %c3%bcsers.""#),
        ("", ""),
    ] {
        assert_eq!(List::decode(field.as_bytes()).unwrap().to_string(), written);
    }
    for (field, written) in [
        (r#"en="Applepie", da=:w4ZibGV0w6ZydGU=:"#, r#"en="Applepie", da=:w4ZibGV0w6ZydGU=:"#),
        ("a=?0, b, c; foo=bar", "a=?0, b, c;foo=bar"),
        ("rating=1.5, feelings=(joy sadness)", "rating=1.5, feelings=(joy sadness)"),
        ("a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid", "a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid"),
        ("a=1,b=2,\ta=3", "a=3, b=2"),
        ("a;b=1;b=2", "a;b=2"),
    ] {
        assert_eq!(Dictionary::decode(field.as_bytes()).unwrap().to_string(), written);
    }
    assert_eq!(Item::decode(b"\"a\\\"b\\\\\"").unwrap().value, Bare::String("a\"b\\".to_owned()));
}

#[test]
fn what_breaks_a_rule_is_no_value() {
    for field in [
        "a,",
        ",a",
        "a b",
        "a=1",
        "(a",
        "(a,b)",
        "(a\"b\")",
        "\"a",
        "\"\\a\"",
        "\"\x7f\"",
        "\"\u{e4}\"",
        ":a",
        ":!:",
        "?2",
        "?",
        "1.",
        "1.2345",
        "1234567890123456",
        "1234567890123.1",
        "--1",
        "-",
        "@1.5",
        "@x",
        "%\"%C3%BC\"",
        "%\"%ff\"",
        "%a",
        "a;A=1",
        "a;",
        "{}",
        "\ta",
        "a;b= 1",
    ] {
        assert!(List::decode(field.as_bytes()).is_err(), "{field}");
    }
    for field in ["A=1", "a=", "a=1,", "=1", "a = 1", "1=a"] {
        assert!(Dictionary::decode(field.as_bytes()).is_err(), "{field}");
    }
    assert!(Item::decode(b"").is_err());
}

#[test]
fn a_field_of_any_size_costs_no_more_than_its_bounds() {
    use portolan_wire::Why;
    let why = |field: String| List::decode(field.as_bytes()).unwrap_err().why;
    assert_eq!(why("a,".repeat(40_000)), Why::TooLong);
    assert_eq!(why("a,".repeat(5000) + "a"), Why::TooLong);
    assert_eq!(why(format!("a{}", ";b".repeat(5000))), Why::TooLong);
    assert_eq!(why("(".repeat(5000)), Why::Invalid);
    assert_eq!(List::decode("a,".repeat(1023).as_bytes().strip_suffix(b",").unwrap()).unwrap().members().len(), 1023);
}

#[test]
fn structured_keeps_the_laws() {
    let seeds: [&[u8]; 4] = [
        b"sig1=(\"@method\" \"@query-param\";name=\"a\");created=1618884473;keyid=\"k\"",
        b"a=?0, b, c;foo=bar, d=(1.5 :YQ==: @12 %\"%c3%bc\")",
        b"params=(\"a\" \"b\"), except",
        b"sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
    ];
    laws::check_datagram(Dictionary::decode, &seeds);
    for seed in seeds {
        let written = Dictionary::decode(seed).unwrap().to_string();
        assert_eq!(Dictionary::decode(written.as_bytes()).unwrap().to_string(), written);
    }
}
