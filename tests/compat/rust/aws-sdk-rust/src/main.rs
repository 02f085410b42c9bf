//! The AWS SDK for Rust: objects of all sizes, parts, conditions, listings.
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumMode, CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use aws_sdk_s3::Client;

fn noise(size: usize) -> Vec<u8> {
    let mut state: u64 = 88172645463325252;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

async fn body(client: &Client, bucket: &str, key: &str) -> Vec<u8> {
    let got = client.get_object().bucket(bucket).key(key).checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    got.body.collect().await.unwrap().into_bytes().to_vec()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (endpoint, bucket) = (&arguments[1], arguments[2].as_str());
    let said = |name: &str| std::env::var(name).unwrap();
    let credentials = Credentials::new(said("AWS_ACCESS_KEY_ID"), said("AWS_SECRET_ACCESS_KEY"), None, None, "environment");
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(credentials)
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .http_client(http)
        .force_path_style(true)
        .build();
    let client = Client::from_conf(config);
    for size in [0, 1, 70_000, 12_000_000] {
        let (content, key) = (noise(size), format!("rust/ü+{size} &=.bin"));
        let sent = ByteStream::from(content.clone());
        client.put_object().bucket(bucket).key(&key).metadata("size", size.to_string()).body(sent).send().await.unwrap();
        assert!(body(&client, bucket, &key).await == content);
        let head = client.head_object().bucket(bucket).key(&key).send().await.unwrap();
        assert_eq!(head.metadata().unwrap()["size"], size.to_string());
        assert_eq!(head.content_length(), Some(size as i64));
    }
    let content = noise(12_000_000);
    let begun = client.create_multipart_upload().bucket(bucket).key("rust/parts").send().await.unwrap();
    let upload = begun.upload_id().unwrap();
    let mut parts = vec![];
    for (at, piece) in content.chunks(5 << 20).enumerate() {
        let sent = client.upload_part().bucket(bucket).key("rust/parts").upload_id(upload).part_number(at as i32 + 1);
        let done = sent.body(ByteStream::from(piece.to_vec())).send().await.unwrap();
        parts.push(CompletedPart::builder().part_number(at as i32 + 1).set_e_tag(done.e_tag).set_checksum_crc32(done.checksum_crc32).build());
    }
    let whole = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    client.complete_multipart_upload().bucket(bucket).key("rust/parts").upload_id(upload).multipart_upload(whole).send().await.unwrap();
    assert!(body(&client, bucket, "rust/parts").await == content);

    let once = || client.put_object().bucket(bucket).key("rust/once").if_none_match("*").body(ByteStream::from_static(b"x")).send();
    once().await.unwrap();
    let refused = once().await.unwrap_err().into_service_error();
    assert_eq!(refused.meta().code(), Some("PreconditionFailed"));
    assert!(client.get_object().bucket(bucket).key("rust/none").send().await.unwrap_err().into_service_error().is_no_such_key());

    let mut pages = client.list_objects_v2().bucket(bucket).prefix("rust/").into_paginator().page_size(2).send();
    let mut found = vec![];
    while let Some(page) = pages.next().await {
        found.extend(page.unwrap().contents().iter().map(|one| ObjectIdentifier::builder().key(one.key().unwrap()).build().unwrap()));
    }
    assert_eq!(found.len(), 6);
    let delete = Delete::builder().set_objects(Some(found)).build().unwrap();
    assert_eq!(client.delete_objects().bucket(bucket).delete(delete).send().await.unwrap().deleted().len(), 6);
}
