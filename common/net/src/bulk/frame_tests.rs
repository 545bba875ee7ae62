use super::*;
use futures::FutureExt;
use proptest::prelude::*;
use tokio::io::BufReader;

const LIMIT: u32 = 100_000;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// How a test takes a payload.
#[derive(Debug, Clone, Copy)]
enum Take {
    Payload,
    ReadInto,
    ReadSome,
    Skip,
    Nothing,
}

fn take() -> impl Strategy<Value = Take> {
    prop_oneof![
        Just(Take::Payload),
        Just(Take::ReadInto),
        Just(Take::ReadSome),
        Just(Take::Skip),
        Just(Take::Nothing),
    ]
}

async fn taken<R: AsyncBufRead + Unpin>(
    reader: &mut FrameReader<R>,
    how: Take,
) -> Result<Option<Vec<u8>>, FrameError> {
    let mut payload = Vec::new();
    match how {
        Take::Payload => payload = reader.payload(LIMIT as usize).await?,
        Take::ReadInto => {
            payload.resize(reader.remaining(), 0);
            reader.read_into(&mut payload).await?;
        }
        Take::ReadSome => {
            let mut some = [0; 777];
            while reader.remaining() > 0 {
                let count = reader.read_some(&mut some).await?;
                payload.extend_from_slice(&some[..count]);
            }
        }
        Take::Skip => {
            reader.skip().await?;
            return Ok(None);
        }
        Take::Nothing => return Ok(None),
    }
    Ok(Some(payload))
}

#[test]
fn golden_bytes() {
    let mut bytes = Vec::new();
    run(async {
        let mut writer = FrameWriter::new(&mut bytes);
        writer.control(7, b"ab").await.unwrap();
        writer.data(8, b"h", b"ody").await.unwrap();
        writer.control(9, b"").await.unwrap();
        writer.flush().await.unwrap();
    });
    assert_eq!(bytes, b"\x02\0\0\0\x07ab\x04\0\0\0\x08hody\0\0\0\0\x09");
}

#[test]
fn limits_are_kept_before_any_payload_comes() {
    let mut reader = FrameReader::new(&b"\x01\x00\x01\0\x07"[..], 65_536);
    assert!(matches!(run(reader.next()), Err(FrameError::TooLong { length: 65_537, limit: 65_536 })));

    let mut reader = FrameReader::new(&b"\xff\xff\xff\xff\x07"[..], u32::MAX);
    assert!(run(reader.next()).unwrap().is_some());
    assert!(matches!(run(reader.payload(32)), Err(FrameError::TooLong { limit: 32, .. })));
}

#[test]
fn a_frame_shorter_than_its_head_is_an_error_and_not_a_wait() {
    let mut reader = FrameReader::new(&b"\x02\0\0\0\x07ab"[..], LIMIT);
    run(reader.next()).unwrap();
    assert!(matches!(run(reader.read_into(&mut [0; 12])), Err(FrameError::TooShort { missing: 10 })));
}

#[test]
fn an_end_between_frames_is_an_end_and_elsewhere_a_loss() {
    let bytes = b"\x02\0\0\0\x07ab";
    for cut in 0..=bytes.len() {
        let mut reader = FrameReader::new(&bytes[..cut], LIMIT);
        let result = run(async {
            let mut frames = 0;
            while reader.next().await?.is_some() {
                reader.payload(10).await?;
                frames += 1;
            }
            Ok::<_, FrameError>(frames)
        });
        match cut {
            0 => assert_eq!(result.unwrap(), 0),
            7 => assert_eq!(result.unwrap(), 1),
            _ => assert!(matches!(result, Err(FrameError::Lost(_))), "cut at {cut}"),
        }
    }
}

#[test]
fn a_payload_over_the_maximum_is_refused_and_the_stream_stays_whole() {
    let mut bytes = Vec::new();
    run(async {
        let mut writer = FrameWriter::new(&mut bytes);
        let long = vec![0; MAX_PAYLOAD];
        assert!(matches!(writer.data(1, b"h", &long).await, Err(FrameError::TooLong { .. })));
        writer.control(2, b"").await.unwrap();
        writer.close().await.unwrap();
    });
    assert_eq!(bytes, b"\0\0\0\0\x02");
}

#[test]
fn a_dropped_next_loses_nothing() {
    run(async {
        let (mut near, far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(BufReader::with_capacity(2, far), LIMIT);
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes);
        writer.control(3, b"payload that is passed over").await.unwrap();
        writer.control(4, b"x").await.unwrap();
        let mut kinds = Vec::new();
        for byte in bytes {
            // The reader gets one byte at a time: each future stops midway and is dropped.
            near.write_u8(byte).await.unwrap();
            if let Some(header) = reader.next().now_or_never() {
                kinds.push(header.unwrap().unwrap().kind);
            }
        }
        assert_eq!(kinds, [3, 4]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_go_through_whatever_the_chunks_and_however_they_are_taken(
        frames in prop::collection::vec(
            (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40), 0_usize..40_000, take()),
            0..20,
        ),
        pipe in 1_usize..200_000,
    ) {
        run(async {
            let (near, far) = tokio::io::duplex(pipe);
            let (mut writer, mut reader) = (FrameWriter::new(near), FrameReader::new(BufReader::new(far), LIMIT));
            let body = |kind: u8, length: usize| vec![kind ^ 0x55; length];
            let send = async {
                for (kind, head, length, _) in &frames {
                    writer.data(*kind, head, &body(*kind, *length)).await.unwrap();
                }
                writer.close().await.unwrap();
            };
            let receive = async {
                for (kind, head, length, how) in &frames {
                    let header = reader.next().await.unwrap().unwrap();
                    let expected = [head.clone(), body(*kind, *length)].concat();
                    prop_assert_eq!((header.kind, header.length as usize), (*kind, expected.len()));
                    if let Some(payload) = taken(&mut reader, *how).await.unwrap() {
                        prop_assert_eq!(payload, expected);
                    }
                }
                prop_assert!(reader.next().await.unwrap().is_none());
                Ok(())
            };
            tokio::join!(send, receive).1
        })?;
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_pass_the_limits(
        bytes in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..5_000),
        limit in 0_u32..3_000,
        hows in prop::collection::vec(take(), 1..5),
    ) {
        run(async {
            let mut reader = FrameReader::new(&bytes[..], limit);
            let mut hows = hows.into_iter().cycle();
            let mut total = 0;
            while let Ok(Some(header)) = reader.next().await {
                prop_assert!(header.length <= limit);
                let Ok(payload) = taken(&mut reader, hows.next().unwrap()).await else { break };
                total += HEADER + payload.map_or(0, |payload| payload.len());
                prop_assert!(total <= bytes.len());
            }
            Ok(())
        })?;
    }
}
