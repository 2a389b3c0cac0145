//! Counts the allocations of the way out, against a writer that takes all.

use asynchat::ProducerSink;
use bytes::Bytes;
use tokio_util::codec::{BytesCodec, FramedWrite};

const ITEMS: usize = 1 << 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for size in [64, 4 << 10] {
        let item = Bytes::from(vec![7; size]);
        // From its first clone on it is shared, which is not the sink's allocation.
        drop(item.clone());
        let allocations = allocation_counter::measure(|| {
            runtime.block_on(async {
                let framed = FramedWrite::new(tokio::io::sink(), BytesCodec::new());
                let mut sink = ProducerSink::new(framed);
                for _ in 0..ITEMS {
                    sink.ready().await.unwrap();
                    sink.push(item.clone()).unwrap();
                }
                sink.close().await.unwrap();
            });
        });
        println!(
            "15  {size} B items: {} allocations for {ITEMS} items, at most {} bytes at a time",
            allocations.count_total, allocations.bytes_max
        );
        assert!(allocations.count_total < 100);
        assert_eq!(allocations.bytes_current, 0);
    }
}
