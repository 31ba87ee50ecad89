<?php
// A receiver in PHP, for `php -S`: verifies each event with the StandardWebhooks library, and answers an incoming message with an INSERT.
require getenv("STANDARD_WEBHOOKS_PHP");

$body = file_get_contents("php://input");
$headers = array_change_key_case(getallheaders(), CASE_LOWER);
try {
    $event = (new StandardWebhooks\Webhook(getenv("SECRET")))->verify($body, $headers);
} catch (StandardWebhooks\Exception\WebhookVerificationException $error) {
    http_response_code(400);
    exit;
}
if ($event["type"] === "message.received") {
    $dsn = sprintf("pgsql:host=%s;dbname=%s;user=%s", getenv("PGHOST"), getenv("PGDATABASE"), getenv("PGUSER"));
    $database = new PDO($dsn, null, null, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
    $insert = $database->prepare("INSERT INTO shardd.jobs (reply_to, body, class, dedupe_key) VALUES (?, ?, 'reply', ?)");
    $insert->execute([$event["data"]["id"], "PHP heard: " . $event["data"]["text"], $headers["webhook-id"]]);
}
http_response_code(204);
