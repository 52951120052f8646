//! Which of several hosts a name belongs to: the same choice as `channels_redis` makes.

/// The host, counted from 0, of `size`: `channels_redis.utils._consistent_hash` of channels_redis 4.3
/// (<https://github.com/django/channels_redis/blob/4.3.0/channels_redis/utils.py>).
pub(in crate::layer) fn host_of(name: &str, size: usize) -> usize {
    if size <= 1 {
        return 0;
    }
    let place = crc32fast::hash(name.as_bytes()) & 0xfff;
    // A division of floating-point numbers, as there: its rounding belongs to the format.
    let divisor = 4096.0 / size as f64;
    ((f64::from(place) / divisor) as usize).min(size - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the Python function gives.
    #[test]
    fn names_go_where_channels_redis_puts_them() {
        let names = [
            "chat_1",
            "chat_2",
            "chat_3",
            "chat_42",
            "chat_1000000",
            "chat_-1",
            "digi_nodes",
            "asgi__group__chat_7",
            "",
            "ключ",
        ];
        for (size, wanted) in [
            (1, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (2, [0, 0, 0, 0, 1, 1, 0, 1, 0, 0]),
            (3, [0, 0, 0, 1, 1, 2, 0, 2, 0, 1]),
            (5, [0, 0, 0, 2, 3, 4, 1, 3, 0, 1]),
            (7, [0, 0, 0, 3, 4, 6, 1, 4, 0, 2]),
            (4096, [400, 42, 188, 1789, 2484, 3679, 980, 2897, 0, 1562]),
            (5000, [488, 51, 229, 2183, 3032, 4490, 1196, 3536, 0, 1906]),
        ] {
            assert_eq!(names.map(|name| host_of(name, size)), wanted, "{size} hosts");
        }
    }
}
