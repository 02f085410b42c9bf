// Hadoop's S3A: a tree is written, listed, renamed, read at random and by many, truncated by overwriting, and deleted; a committer commits by uploads.
import java.net.URI;
import java.util.Arrays;
import java.util.Random;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.ContentSummary;
import org.apache.hadoop.fs.FileAlreadyExistsException;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

public class Main {
    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    static byte[] read(FileSystem files, Path path, int size) throws Exception {
        byte[] content = new byte[size];
        try (var in = files.open(path)) {
            in.readFully(0, content);
            check(in.read(size, new byte[1], 0, 1) < 0, "more than was written: " + path);
        }
        return content;
    }

    public static void main(String[] arguments) throws Exception {
        var settings = new Configuration();
        settings.set("fs.s3a.endpoint", arguments[0]);
        settings.set("fs.s3a.endpoint.region", "us-east-1");
        settings.setBoolean("fs.s3a.path.style.access", true);
        settings.setBoolean("fs.s3a.connection.ssl.enabled", false);
        settings.set("fs.s3a.aws.credentials.provider", "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider");
        settings.set("fs.s3a.buffer.dir", arguments[2]);
        settings.set("fs.s3a.multipart.size", "5M");
        settings.set("fs.s3a.multipart.threshold", "5M");
        var files = FileSystem.newInstance(URI.create("s3a://" + arguments[1]), settings);
        var random = new Random(1);
        int[] sizes = {0, 1, 70_000, 12_000_000};
        byte[][] contents = new byte[sizes.length][];
        for (int at = 0; at < sizes.length; at++) {
            contents[at] = new byte[sizes[at]];
            random.nextBytes(contents[at]);
            try (var out = files.create(new Path("/tree/dir " + at % 2 + "/ü+" + at + " &=.bin"))) {
                out.write(contents[at]);
            }
        }
        files.mkdirs(new Path("/tree/empty"));
        ContentSummary summary = files.getContentSummary(new Path("/tree"));
        check(summary.getFileCount() == 4 && summary.getLength() == Arrays.stream(sizes).sum(), "summary: " + summary);
        check(files.rename(new Path("/tree"), new Path("/moved")), "rename");
        check(!files.exists(new Path("/tree")) && files.getFileStatus(new Path("/moved/empty")).isDirectory(), "after the rename");
        for (int at = 0; at < sizes.length; at++) {
            Path path = new Path("/moved/dir " + at % 2 + "/ü+" + at + " &=.bin");
            check(Arrays.equals(contents[at], read(files, path, sizes[at])), "content of " + path);
        }
        Path large = new Path("/moved/dir 1/ü+3 &=.bin");
        try (var in = files.open(large)) {
            for (int turn = 0; turn < 20; turn++) {
                int from = random.nextInt(sizes[3] - 5000);
                byte[] piece = new byte[5000];
                in.seek(from);
                in.readFully(piece);
                check(Arrays.equals(piece, Arrays.copyOfRange(contents[3], from, from + 5000)), "from " + from);
            }
        }
        try (var out = files.create(large, true)) {
            out.write(7);
        }
        check(Arrays.equals(new byte[] {7}, read(files, large, 1)), "overwritten");
        try {
            files.create(large, false).close();
            throw new AssertionError("what is there was made anew");
        } catch (FileAlreadyExistsException expected) {
            // as it should
        }
        var parts = files.createMultipartUploader(new Path("/moved")).build();
        Path joined = new Path("/moved/joined");
        var upload = parts.startUpload(joined).get();
        var first = parts.putPart(upload, 1, false, joined, new java.io.ByteArrayInputStream(contents[3], 0, 6_000_000), 6_000_000).get();
        var second = parts.putPart(upload, 2, true, joined, new java.io.ByteArrayInputStream(contents[3], 6_000_000, 6_000_000), 6_000_000).get();
        parts.complete(upload, joined, java.util.Map.of(1, first, 2, second)).get();
        check(Arrays.equals(contents[3], read(files, joined, sizes[3])), "joined");
        FileStatus[] listed = files.listStatus(new Path("/moved"));
        check(listed.length == 4, "listed: " + Arrays.toString(listed));
        check(files.delete(new Path("/moved"), true) && files.listStatus(new Path("/")).length == 0, "deleted");
        files.close();
    }
}
