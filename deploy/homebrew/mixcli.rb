# A formula for a tap: `brew tap-new you/tap`, put it into its Formula folder, `brew install you/tap/mixcli`.
# `python3 deploy/release.py formula dist/mixcli-VERSION.tar.gz` writes it with the release's address and checksum.
class Mixcli < Formula
  include Language::Python::Virtualenv

  desc "Run Mixtral and the Mistral family on the machine you already own"
  homepage "https://pypi.org/project/mixcli/"
  url "https://files.pythonhosted.org/packages/source/m/mixcli/mixcli-0.1.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "Apache-2.0"

  depends_on "cmake" => :build
  depends_on "ninja" => :build
  depends_on "python@3.13"

  def install
    # llama.cpp is compiled for this computer (Metal on Apple silicon); everything else comes as wheels
    ENV["CMAKE_ARGS"] = "-DLLAVA_BUILD=OFF -DGGML_RPC=ON"
    virtualenv_create(libexec, "python3.13", without_pip: false)
    system libexec/"bin/python", "-m", "pip", "install", "--no-cache-dir", "#{buildpath}[demo,fast]"
    bin.install_symlink libexec/"bin/mixcli"
    generate_completions_from_executable(bin/"mixcli", shell_parameter_format: :click)
  end

  service do
    run [opt_bin/"mixcli", "serve"]
    keep_alive crashed: true
    log_path var/"log/mixcli.log"
    error_log_path var/"log/mixcli.log"
  end

  def caveats
    <<~EOS
      Start with:
        mixcli pull demo
        mixcli chat -m demo
    EOS
  end

  test do
    ENV["MIXCLI_HOME"] = testpath
    assert_match version.to_s, shell_output("#{bin}/mixcli --version")
    system bin/"mixcli", "pull", "-q", "demo"
    assert_match "Paris", pipe_output("#{bin}/mixcli run -m demo", "What is the capital of France?", 0)
    system bin/"mixcli", "stop", "--all"
  end
end
