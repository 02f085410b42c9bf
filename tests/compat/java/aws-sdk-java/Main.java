// The AWS SDK for Java v2: objects of all sizes, streams whose length nobody knows, parts by the transfer manager, conditions, listings, links.
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Executors;
import software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider;
import software.amazon.awssdk.core.async.AsyncRequestBody;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.s3.S3AsyncClient;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.S3Configuration;
import software.amazon.awssdk.services.s3.model.ChecksumAlgorithm;
import software.amazon.awssdk.services.s3.model.ChecksumMode;
import software.amazon.awssdk.services.s3.model.NoSuchKeyException;
import software.amazon.awssdk.services.s3.model.ObjectIdentifier;
import software.amazon.awssdk.services.s3.model.S3Exception;
import software.amazon.awssdk.services.s3.presigner.S3Presigner;
import software.amazon.awssdk.transfer.s3.S3TransferManager;

public class Main {
    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    static void refused(Runnable work, String code) {
        try {
            work.run();
        } catch (S3Exception error) {
            check(error.awsErrorDetails().errorCode().equals(code), error.toString());
            return;
        }
        throw new AssertionError(code + " was expected");
    }

    public static void main(String[] arguments) throws Exception {
        URI endpoint = URI.create(arguments[0]);
        String bucket = arguments[1];
        Path directory = Path.of(arguments[2]);
        var credentials = EnvironmentVariableCredentialsProvider.create();
        var client = S3Client.builder().endpointOverride(endpoint).region(Region.US_EAST_1).credentialsProvider(credentials).forcePathStyle(true).build();
        var later = S3AsyncClient.builder().endpointOverride(endpoint).region(Region.US_EAST_1).credentialsProvider(credentials).forcePathStyle(true).multipartEnabled(true).build();
        var presigner = S3Presigner.builder().endpointOverride(endpoint).region(Region.US_EAST_1).credentialsProvider(credentials).serviceConfiguration(S3Configuration.builder().pathStyleAccessEnabled(true).build()).build();
        var random = new Random(1);
        for (int size : new int[] {0, 1, 70_000, 20_000_000}) {
            byte[] content = new byte[size];
            random.nextBytes(content);
            String key = "java/ü+" + size + " &=.bin";
            client.putObject(put -> put.bucket(bucket).key(key).metadata(Map.of("size", "" + size)), RequestBody.fromBytes(content));
            var got = client.getObjectAsBytes(get -> get.bucket(bucket).key(key).checksumMode(ChecksumMode.ENABLED));
            check(Arrays.equals(content, got.asByteArray()) && got.response().metadata().get("size").equals("" + size), key);
            client.putObject(put -> put.bucket(bucket).key(key).checksumAlgorithm(ChecksumAlgorithm.SHA256), RequestBody.fromInputStream(new ByteArrayInputStream(content), size));
            var link = presigner.presignGetObject(sign -> sign.signatureDuration(Duration.ofMinutes(5)).getObjectRequest(get -> get.bucket(bucket).key(key)));
            var linked = HttpClient.newHttpClient().send(HttpRequest.newBuilder(link.url().toURI()).build(), HttpResponse.BodyHandlers.ofByteArray());
            check(linked.statusCode() == 200 && Arrays.equals(content, linked.body()), "link to " + key);

            Path sent = directory.resolve("sent"), back = directory.resolve("back");
            Files.write(sent, content);
            try (var manager = S3TransferManager.builder().s3Client(later).build()) {
                manager.uploadFile(upload -> upload.source(sent).putObjectRequest(put -> put.bucket(bucket).key(key))).completionFuture().join();
                manager.downloadFile(download -> download.destination(back).getObjectRequest(get -> get.bucket(bucket).key(key))).completionFuture().join();
            }
            check(Files.mismatch(sent, back) < 0, "transfer of " + key);
            var threads = Executors.newFixedThreadPool(2);
            var unknown = AsyncRequestBody.fromInputStream(from -> from.inputStream(new ByteArrayInputStream(content)).contentLength(null).executor(threads));
            later.putObject(put -> put.bucket(bucket).key(key), unknown).join();
            threads.shutdown();
            check(Arrays.equals(content, client.getObjectAsBytes(get -> get.bucket(bucket).key(key)).asByteArray()), "stream of " + key);
        }
        Runnable once = () -> client.putObject(put -> put.bucket(bucket).key("java/once").ifNoneMatch("*"), RequestBody.fromString("x"));
        once.run();
        refused(once, "PreconditionFailed");
        refused(() -> client.getBucketPolicy(get -> get.bucket(bucket)), "NoSuchBucketPolicy");
        try {
            client.getObject(get -> get.bucket(bucket).key("java/none"));
            throw new AssertionError("what is not there was got");
        } catch (NoSuchKeyException expected) {
            // as it should
        }
        var keys = client.listObjectsV2Paginator(list -> list.bucket(bucket).prefix("java/").maxKeys(2)).contents().stream().map(found -> ObjectIdentifier.builder().key(found.key()).build()).toList();
        check(keys.size() == 5, "five keys: " + keys);
        check(client.deleteObjects(delete -> delete.bucket(bucket).delete(named -> named.objects(keys))).deleted().size() == 5, "deleted");
        later.close();
        client.close();
    }
}
