// The interop TestService on grpc++, with health and reflection. Arguments: port, folder of interop.proto (compiled in), and for
// TLS the certificate and its key. It prints a line when it serves.

#include <chrono>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "interop.grpc.pb.h"
#include "rich.pb.h"

// Exported for tests by the library, declared in none of its headers.
uint32_t grpc_call_test_only_get_message_flags(grpc_call* call);

namespace grpc::testing {

// A friend of the context by this name: it tells whether the last message came compressed.
class InteropServerContextInspector {
 public:
  static bool compressed(const ServerContextBase& context) {
    // It is compressed, or it was before the library inflated it.
    const uint32_t compressed = 0x80000000u | 0x40000000u;
    return grpc_call_test_only_get_message_flags(context.call_.call) & compressed;
  }
};

}  // namespace grpc::testing

using namespace grpc::testing;
using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

namespace {

void echo_metadata(ServerContext* context) {
  for (const auto& [key, value] : context->client_metadata()) {
    if (key == "x-grpc-test-echo-initial") context->AddInitialMetadata(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
    if (key == "x-grpc-test-echo-trailing-bin") context->AddTrailingMetadata(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
  }
}

template <class Message>
bool as_expected(const ServerContext* context, const Message& message) {
  if (!message.has_expect_compressed()) return true;
  return InteropServerContextInspector::compressed(*context) == message.expect_compressed().value();
}

Status echoed(const EchoStatus& status) {
  return Status(static_cast<StatusCode>(status.code()), status.message());
}

Status rich_error() {
  google::rpc::Status rich;
  rich.set_code(8);
  rich.set_message("sold out");
  google::rpc::ErrorInfo info;
  info.set_reason("STOCKOUT");
  info.set_domain("shop.test");
  (*info.mutable_metadata())["zone"] = "a";
  rich.add_details()->PackFrom(info);
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  retry.mutable_retry_delay()->set_nanos(500000000);
  rich.add_details()->PackFrom(retry);
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("name");
  violation->set_description("too long");
  rich.add_details()->PackFrom(bad);
  return Status(StatusCode::RESOURCE_EXHAUSTED, "sold out", rich.SerializeAsString());
}

// The writer of a stream of either kind.
template <class Writer>
void outputs(ServerContext* context, const StreamingOutputCallRequest& request, Writer* writer) {
  for (const auto& parameters : request.response_parameters()) {
    for (int left = parameters.interval_us(); left > 0 && !context->IsCancelled(); left -= 10000) {
      std::this_thread::sleep_for(std::chrono::microseconds(std::min(left, 10000)));
    }
    if (context->IsCancelled()) return;
    grpc::WriteOptions options;
    if (parameters.has_compressed() && !parameters.compressed().value()) options.set_no_compression();
    StreamingOutputCallResponse response;
    response.mutable_payload()->set_body(std::string(parameters.size(), '\0'));
    writer->Write(response, options);
  }
}

class Service final : public TestService::Service {
  Status EmptyCall(ServerContext*, const Empty*, Empty*) override { return Status::OK; }

  Status UnaryCall(ServerContext* context, const SimpleRequest* request, SimpleResponse* response) override {
    echo_metadata(context);
    if (!as_expected(context, *request)) return Status(StatusCode::INVALID_ARGUMENT, "not compressed as it was said");
    if (context->client_metadata().count("x-rich-error")) return rich_error();
    if (context->client_metadata().count("x-deadline")) {
      const std::chrono::duration<double> left = context->deadline() - std::chrono::system_clock::now();
      context->AddTrailingMetadata("x-time-left", std::to_string(left.count()));
    }
    if (request->has_response_status()) return echoed(request->response_status());
    if (request->has_response_compressed()) {
      const bool compressed = request->response_compressed().value();
      context->set_compression_algorithm(compressed ? GRPC_COMPRESS_GZIP : GRPC_COMPRESS_NONE);
    }
    response->mutable_payload()->set_body(std::string(request->response_size(), '\0'));
    return Status::OK;
  }

  Status StreamingOutputCall(ServerContext* context, const StreamingOutputCallRequest* request,
                             grpc::ServerWriter<StreamingOutputCallResponse>* writer) override {
    for (const auto& parameters : request->response_parameters()) {
      if (parameters.has_compressed()) context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    }
    outputs(context, *request, writer);
    return Status::OK;
  }

  Status StreamingInputCall(ServerContext* context, grpc::ServerReader<StreamingInputCallRequest>* reader,
                            StreamingInputCallResponse* response) override {
    StreamingInputCallRequest request;
    int sum = 0;
    while (reader->Read(&request)) {
      if (!as_expected(context, request)) return Status(StatusCode::INVALID_ARGUMENT, "not compressed as it was said");
      sum += static_cast<int>(request.payload().body().size());
    }
    response->set_aggregated_payload_size(sum);
    return Status::OK;
  }

  Status FullDuplexCall(ServerContext* context,
                        grpc::ServerReaderWriter<StreamingOutputCallResponse, StreamingOutputCallRequest>* stream) override {
    echo_metadata(context);
    StreamingOutputCallRequest request;
    while (stream->Read(&request)) {
      if (request.has_response_status()) return echoed(request.response_status());
      outputs(context, request, stream);
    }
    return Status::OK;
  }
};

std::string contents(const char* path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (argc > 4) {
    grpc::SslServerCredentialsOptions options;
    options.pem_key_cert_pairs.push_back({contents(argv[4]), contents(argv[3])});
    credentials = grpc::SslServerCredentials(options);
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  Service service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(std::string("127.0.0.1:") + argv[1], credentials);
  builder.SetMaxReceiveMessageSize(16 << 20);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return 1;
  server->GetHealthCheckService()->SetServingStatus("grpc.testing.TestService", true);
  server->GetHealthCheckService()->SetServingStatus("down", false);
  std::cout << "grpc++ " << grpc::Version() << std::endl;
  server->Wait();
}
